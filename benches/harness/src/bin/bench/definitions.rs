//! The cost of a definitions file: of a change, beside the same shaping by hand, and of a start.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use dsql_view_bench::workload;
use serde_json::json;
use tempfile::TempDir;

use crate::figures::{Section, Spread, count, each, float, median, signed, time, times, turns};
use crate::instructions::{Callgrind, WARM_UP};
use crate::programs::Program;
use crate::subject::{Spent, Subject};
use crate::targets::Target;
use crate::{Bench, BoxError};

/// The definition that the peers share.
pub const FULL: &str = "benches/views.toml";

const CHANGES: u64 = 5_000;
/// The changes of a turn of the handlers, which take longer.
const CHANGES_BY_HAND: u64 = 1_000;
const RUNS_BY_HAND: usize = 3;
/// The rows whose items must have the same size in each program.
const ROWS_COMPARED: u64 = 100;
/// Figures that are nearly equal take more turns.
const TURNS_A_RUN: usize = 5;
/// Fewer changes, because callgrind takes fifty times as long.
const CHANGES_COUNTED: u64 = 1_000;
const STARTS: usize = 31;
const TABLES: usize = 5_000;

/// The files that are made for the bench.
struct Files(TempDir);

impl Files {
    fn new() -> Result<Self, BoxError> {
        let files = Self(TempDir::new()?);
        std::fs::write(files.names_and_keys(), names_and_keys())?;
        for tables in [1, TABLES] {
            std::fs::write(files.with_tables(tables), with_keys(tables))?;
            std::fs::write(files.with_names(tables), with_names(tables))?;
        }
        Ok(files)
    }

    fn names_and_keys(&self) -> PathBuf {
        self.0.path().join("names-and-keys.toml")
    }

    fn with_tables(&self, tables: usize) -> PathBuf {
        self.0.path().join(format!("{tables}-tables.toml"))
    }

    fn with_names(&self, tables: usize) -> PathBuf {
        self.0.path().join(format!("{tables}-names.toml"))
    }
}

/// A file that says what `SOURCE_TABLES` of the bench says.
pub fn names_and_keys() -> &'static str {
    "version = 1\n\n[[table]]\nname = \"order_items\"\nprimary_key = [\"id\"]\n"
}

/// A file with this number of tables in one view table, each with a name and a key alone.
fn with_names(tables: usize) -> String {
    let mut file = "version = 1\n".to_owned();
    for table in 0..tables {
        let table = format!("\n[[table]]\nname = \"tenant_{table}.orders\"\nprimary_key = [\"id\"]\nview = \"view\"\n");
        file.push_str(&table);
    }
    file
}

/// The same, with a template for each key.
fn with_keys(tables: usize) -> String {
    let mut file = "version = 1\n".to_owned();
    for table in 0..tables {
        writeln!(
            file,
            "\n[[table]]\nname = \"tenant_{table}.orders\"\nprimary_key = [\"id\"]\nview = \"view\"\n\
             key = {{ pk = \"TENANT#{table}#ORDER#{{id}}\" }}"
        )
        .expect("writing to a string");
    }
    file
}

pub async fn measure(bench: &mut Bench) -> Result<String, BoxError> {
    let files = Files::new()?;
    let mut section = Section::new(
        "Definitions",
        &format!(
            "A definitions file (`views.toml`) against none. The full definition is `{FULL}`: types, a key template, \
             two columns left out, two renamed, a row condition, and two templates as attributes of an index that the \
             table has. All programs get the same changes. *Bytes* is the size of an item, as DynamoDB counts it."
        ),
    );
    a_change(bench, &mut section, &files).await?;
    by_hand(bench, &mut section).await?;
    starts(bench, &mut section, &files).await?;
    Ok(section.text())
}

/// The function with each kind of file, and that of an earlier version, if there is one.
async fn a_change(bench: &mut Bench, section: &mut Section, files: &Files) -> Result<(), BoxError> {
    let endpoint = bench.stub.endpoint();
    let without = bench.programs.function(&endpoint);
    let mut programs = vec![
        ("without a file", without.clone()),
        ("a file of names and keys alone", bench.programs.defined(&endpoint, &files.names_and_keys())),
        ("a full definition", bench.programs.defined(&endpoint, &bench.programs.of_project(FULL))),
    ];
    if let Some(binary) = &bench.before {
        programs.push(("without a file, an earlier version", Program { binary: binary.clone(), ..without }));
    }
    let (mut subjects, mut bytes) = (Vec::new(), Vec::new());
    for (place, (_, program)) in programs.iter().enumerate() {
        bench.stub.set(&json!({ "indexed": place == FULLY }))?;
        subjects.push(Subject::start(program).await?);
        bytes.push(item_bytes(bench, program).await?);
    }
    bench.progress("  a change, with each kind of file");
    let mut spent = vec![Vec::new(); subjects.len()];
    for (turn, which) in turns(TURNS_A_RUN * bench.runs + 1, subjects.len()).enumerate() {
        let of_turn = subjects[which].apply([bench.workload.event(CHANGES)]).await?;
        // The first turn opens the connections.
        if turn >= subjects.len() {
            spent[which].push(of_turn);
        }
    }
    let full = Spent::cpu_ratios(&spent[FULLY], &spent[0]).median;
    bench.targets.note(Target::FullDefinition, "CPU", full);
    if let Some(earlier) = spent.get(EARLIER) {
        bench.targets.note(Target::WithoutFile, "CPU", Spent::cpu_ratios(&spent[0], earlier).median);
    }
    let counted = instructions(bench, &programs).await?;
    if let Some(counted) = &counted {
        bench.targets.note(Target::FullDefinition, "instructions", float(counted[FULLY]) / float(counted[0]));
        if let Some(earlier) = counted.get(EARLIER) {
            bench.targets.note(Target::WithoutFile, "instructions", float(counted[0]) / float(*earlier));
        }
    }
    let rows = programs.iter().enumerate().map(|(which, (name, _))| {
        let mut row = vec![
            (*name).to_owned(),
            Spent::cpu_ratios(&spent[which], &spent[0]).to_string(),
            time(each(Spent::median(&spent[which]).cpu, CHANGES)),
            count(bytes[which] / ROWS_COMPARED),
        ];
        row.extend(counted.iter().flat_map(|of| [times(float(of[which]) / float(of[0])), count(of[which])]));
        row
    });
    section.says(&format!(
        "**A change**, in batches of {}, DynamoDB answering at once. Instructions are callgrind's, as above.",
        count(CHANGES)
    ));
    let heads = ["", "CPU", "a change", "bytes", "instructions", "a change"];
    section.table(if counted.is_some() { &heads } else { &heads[..4] }, rows);
    Ok(())
}

/// The places of the programs in [`a_change`].
const FULLY: usize = 2;
const EARLIER: usize = 3;

/// The instructions of a change for each of the programs, if callgrind is installed.
async fn instructions(bench: &mut Bench, programs: &[(&str, Program)]) -> Result<Option<Vec<u64>>, BoxError> {
    let Some(callgrind) = Callgrind::find() else { return Ok(None) };
    bench.progress("  instructions, by callgrind");
    let (warm_up, batch) = (bench.workload.event(WARM_UP), bench.workload.event(CHANGES_COUNTED));
    let mut counts = Vec::new();
    for (place, (_, program)) in programs.iter().enumerate() {
        bench.stub.set(&json!({ "indexed": place == FULLY }))?;
        counts.push(callgrind.of_function(program, &[&warm_up], &batch).await? / CHANGES_COUNTED);
    }
    Ok(Some(counts))
}

/// The bytes of the items that a program makes of the first rows.
pub async fn item_bytes(bench: &Bench, program: &Program) -> Result<u64, BoxError> {
    bench.stub.set(&json!({ "remember": true }))?;
    bench.stub.reset()?;
    Subject::start(program).await?.apply([workload::event_of_first(ROWS_COMPARED)]).await?;
    let counts = bench.stub.counts()?;
    bench.stub.set(&json!({ "remember": false }))?;
    bench.stub.reset()?;
    if counts.applied != ROWS_COMPARED {
        return Err(format!("{} has put {} of {ROWS_COMPARED} rows", program.name, counts.applied).into());
    }
    Ok(counts.item_bytes)
}

/// The bytes of the items that the full definition makes of the first rows, by its words.
pub fn shaped_bytes() -> usize {
    let item = |row: u64| {
        let change = workload::change(row, row);
        let order = 1_000 + row / 3;
        let created = "2026-03-18T14:24:01.048727Z";
        let item = json!({
            "pk": { "S": format!("ITEM#{row}") },
            "_ts_ns": { "N": change.committed.to_string() },
            "_tx_id": { "S": change.transaction },
            "id": { "N": row.to_string() },
            "orderId": { "N": order.to_string() },
            "product": { "S": format!("A product with a name, number {row}") },
            "price": { "N": "29.99" },
            "quantity": { "N": "5" },
            "createdAt": { "S": created },
            "GSI1PK": { "S": format!("ORDER#{order}") },
            "GSI1SK": { "S": format!("{created}#{row}") },
        });
        item.as_object().map_or(0, dynamodb_stub::item_size)
    };
    (0..ROWS_COMPARED).map(item).sum()
}

/// The straightforward handlers with the same shaping in their own language.
async fn by_hand(bench: &mut Bench, section: &mut Section) -> Result<(), BoxError> {
    let endpoint = bench.stub.endpoint();
    bench.stub.set(&json!({ "indexed": true }))?;
    let full = bench.programs.defined(&endpoint, &bench.programs.of_project(FULL));
    let mut programs = vec![(full, bench.programs.function(&endpoint))];
    let mut peers = vec![bench.programs.plain(&endpoint)];
    peers.extend(bench.programs.node(&endpoint));
    peers.extend(bench.programs.python(&endpoint).into_iter().take(2));
    programs.extend(peers.into_iter().map(|peer| (peer.clone().with("SHAPED", "true"), peer)));

    let (mut subjects, mut expected) = (Vec::new(), None);
    for (shaped, raw) in &programs {
        let bytes = item_bytes(bench, shaped).await?;
        if *expected.get_or_insert(bytes) != bytes {
            return Err(format!("{} makes other items: {bytes} bytes, not {expected:?}", shaped.name).into());
        }
        subjects.extend([Subject::start(shaped).await?, Subject::start(raw).await?]);
    }
    bench.progress("  the same by hand; each applies 1,000 changes to be warm");
    for subject in &mut subjects {
        subject.apply([bench.workload.event(CHANGES_BY_HAND)]).await?;
    }
    let mut spent = vec![Vec::new(); subjects.len()];
    for which in turns(RUNS_BY_HAND.min(bench.runs), subjects.len()) {
        spent[which].push(subjects[which].apply([bench.workload.event(CHANGES_BY_HAND)]).await?);
    }
    let rows = programs.iter().zip(spent.chunks(2)).map(|((program, _), of)| {
        let cpu = |spent: &[Spent]| time(each(Spent::median(spent).cpu, CHANGES_BY_HAND));
        vec![
            program.name.to_owned(),
            times(Spent::cpu_ratios(&of[0], &spent[0]).median),
            cpu(&of[0]),
            times(Spent::cpu_ratios(&of[1], &spent[1]).median),
            cpu(&of[1]),
            Spent::cpu_ratios(&of[0], &of[1]).to_string(),
        ]
    });
    section.says(&format!(
        "**The same shaping by hand**: the CPU of a change, in batches of {}, with dsql-view as 1. The handlers do in \
         their own code what the full definition says, and put items of the same size. *To unshaped* is the price of \
         the shaping in each program.",
        count(CHANGES_BY_HAND)
    ));
    section.table(&["", "shaped", "a change", "unshaped", "a change", "to unshaped"], rows);
    if programs.len() < 5 {
        section.says("Python or Node.js is not installed, so its figures are missing.");
    }
    bench.stub.set(&json!({ "indexed": false }))
}

/// The starts with files of one and of many tables.
async fn starts(bench: &mut Bench, section: &mut Section, files: &Files) -> Result<(), BoxError> {
    bench.progress("  starts");
    let endpoint = bench.stub.endpoint();
    let defined = |file: &Path| bench.programs.defined(&endpoint, file);
    let programs = [
        ("no file", bench.programs.function(&endpoint), None),
        ("a full definition of one table", defined(&bench.programs.of_project(FULL)), None),
        ("one table, name and key", defined(&files.with_names(1)), None),
        ("5,000 tables, names and keys", defined(&files.with_names(TABLES)), Some(2)),
        ("one table with a key template", defined(&files.with_tables(1)), None),
        ("5,000 tables with key templates", defined(&files.with_tables(TABLES)), Some(4)),
    ];
    let mut inits = vec![Vec::new(); programs.len()];
    for which in turns(STARTS, programs.len()) {
        inits[which].push(Subject::start(&programs[which].1).await?.init);
    }
    let mut rows = Vec::new();
    for ((name, _, one), of) in programs.iter().zip(&inits) {
        let more =
            Spread::of(of.iter().zip(&inits[0]).map(|(with, without)| with.as_secs_f64() - without.as_secs_f64()));
        let to_one = one.map(|one: usize| Spread::of_ratios(of.iter().copied(), inits[one].iter().copied()));
        match to_one {
            Some(to_one) => bench.targets.note(Target::StartOfTables, format!("of {name}"), to_one.median),
            None if *name == programs[0].0 => {}
            None => bench.targets.note(Target::StartOfFile, format!("of {name}"), more.median),
        }
        rows.push(vec![
            (*name).to_owned(),
            time(median(of.iter().copied())),
            signed(more.median),
            to_one.map_or_else(String::new, |to_one| to_one.to_string()),
        ]);
    }
    section.says(
        "**A start**: init as above, without TLS. *More* is the median of the differences to the start of the same \
         turn without a file. *To one table* is the ratio to the start of the same turn with one such table.",
    );
    section.table(&["", "init", "more", "to one table"], rows);
    Ok(())
}

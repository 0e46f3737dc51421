//! The facts that tests read from the pages of `docs/`.

/// The metrics that docs/metrics.md names, with their units, and whether the function sends them by table.
///
/// # Panics
/// The page has no such table.
pub fn metrics() -> Vec<(String, String, bool)> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md")).unwrap();
    let (_, behind) = page.split_once("| metric | unit | by table | meaning |\n").expect("a table of metrics");
    let rows = behind.lines().skip(1).take_while(|row| row.starts_with('|'));
    let cells = rows.map(|row| row.split('|').map(|cell| cell.trim().replace('`', "")).collect::<Vec<_>>());
    cells.map(|cells| (cells[1].clone(), cells[2].clone(), cells[3] == "yes")).collect()
}

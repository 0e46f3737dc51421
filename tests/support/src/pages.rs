//! The facts that tests read from the pages of `docs/`.

/// The metrics that docs/metrics.md names, with their units, and whether the function sends them by table.
///
/// # Panics
/// The page has no such table.
pub fn metrics() -> Vec<(String, String, bool)> {
    let rows = rows("| metric | unit | by table | meaning |\n").into_iter();
    rows.map(|cells| (cells[1].clone(), cells[2].clone(), cells[3] == "yes")).collect()
}

/// The metrics of a view table that docs/metrics.md names, with their units.
///
/// # Panics
/// The page has no such table.
pub fn metrics_by_view_table() -> Vec<(String, String)> {
    let rows = rows("| metric of a view table | unit | meaning |\n").into_iter();
    rows.map(|cells| (cells[1].clone(), cells[2].clone())).collect()
}

/// The cells of a table of the page, without its head.
fn rows(head: &str) -> Vec<Vec<String>> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md")).unwrap();
    let (_, behind) = page.split_once(head).expect("a table of metrics");
    let rows = behind.lines().skip(1).take_while(|row| row.starts_with('|'));
    rows.map(|row| row.split('|').map(|cell| cell.trim().replace('`', "")).collect()).collect()
}

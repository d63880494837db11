//! CONFIGURATION.md says what the table of entries says.
//!
//! `UPDATE=1 cargo test --test configuration_page` writes the page anew.

use std::path::Path;

#[test]
fn the_configuration_page_is_not_stale() -> std::io::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("CONFIGURATION.md");
    let wanted = logstreams::config::configuration_page();
    if std::env::var_os("UPDATE").is_some() {
        return std::fs::write(path, wanted);
    }
    let found = std::fs::read_to_string(&path)?;
    assert!(found == wanted, "CONFIGURATION.md is stale; run UPDATE=1 cargo test --test configuration_page");
    Ok(())
}

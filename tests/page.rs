//! The page works in a browser. Its tests are those of the folder beside this file; they need Python and a Chromium.

use std::path::Path;
use std::process::Command;

#[test]
fn the_page_works_in_a_browser() {
    let tests = Command::new("python3")
        .args(["-B", "-m", "unittest", "discover", "-s", "tests/page"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .env("DOWNSHIFT_BIN", env!("CARGO_BIN_EXE_downshift"))
        .output();
    match tests {
        Err(error) => eprintln!("skipped: python3 cannot be run: {error}"),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{said}");
            // "OK", or how many were skipped where there is no browser.
            eprintln!("{}", said.lines().last().unwrap_or_default());
        }
    }
}

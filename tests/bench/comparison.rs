//! What is said of two benchmarks.

use std::path::Path;

use snapferry::bench::result::Results;

use crate::world::{snapferry, text};
use crate::{document, folder, results};

/// A document with all rates times `factor`.
fn changed(path: &Path, from: &Results, factor: f64, change: impl Fn(&mut Results)) -> String {
    let mut results = from.clone();
    for cell in &mut results.cells {
        for repeat in &mut cell.repeats {
            repeat.rate *= factor;
        }
        cell.rate.middle *= factor;
    }
    change(&mut results);
    std::fs::write(path, results.to_json().unwrap()).unwrap();
    path.display().to_string()
}

#[test]
fn benchmarks_are_compared_and_only_what_is_sure_is_said() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let made = snapferry()
        .args([
            "bench",
            "--quiet",
            "--output",
            "json",
            "--pattern",
            "dense",
            "--size",
            "2MiB",
            "--repeats",
            "3",
        ])
        .args(["--concurrency", "2,4", "--chunk-size", "1MiB", "--warm-up", "0"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    let mut made = results(&made.stdout);
    // Noise of a percent: what was measured here may have any.
    for cell in &mut made.cells {
        for (repeat, part) in cell.repeats.iter_mut().zip([0.99, 1.0, 1.01]) {
            repeat.rate = cell.rate.middle * part;
        }
    }
    let old = changed(&at("old.json"), &made, 1.0, |_| ());
    let slow = changed(&at("slow.json"), &made, 0.5, |_| ());
    let far = changed(&at("far.json"), &made, 2.0, |results| results.environment.cores += 62);
    let compare =
        |arguments: &[&str]| snapferry().args(["bench", "compare"]).args(arguments).output().unwrap();

    let same = compare(&[&old, &old, "--fail-if-slower", "1%"]);
    let shown = text(&same.stdout);
    assert!(same.status.success(), "{}", text(&same.stderr));
    assert!(
        shown.contains("no difference shown") && !shown.contains("faster") && !shown.contains("slower"),
        "{shown}"
    );

    let both = compare(&[&old, &slow, &far, "--output", "json"]);
    assert!(both.status.success());
    let both = document(&both.stdout);
    let words: Vec<_> = both["comparisons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["comparison"]["overall"]["word"])
        .collect();
    assert_eq!(words, ["slower", "faster"]);
    assert!(both["comparisons"][1]["comparison"]["warnings"][0].as_str().unwrap().contains("cores"));

    let failed = compare(&[&old, &slow, "--fail-if-slower", "5%", "--output", "json"]);
    assert_eq!(failed.status.code(), Some(28), "{}", text(&failed.stderr));
    let failed = document(&failed.stdout);
    assert_eq!(failed["error"]["kind"], "slower");
    assert!(failed["comparisons"][0]["comparison"]["cells"].as_array().is_some_and(|cells| cells.len() == 2));
    assert!(compare(&[&old, &slow, "--fail-if-slower", "60%"]).status.success());
    std::fs::write(at("other.json"), "{\"format\": 7}").unwrap();
    let other = compare(&[&old, &at("other.json").display().to_string()]);
    assert_eq!(other.status.code(), Some(2), "{}", text(&other.stderr));
}

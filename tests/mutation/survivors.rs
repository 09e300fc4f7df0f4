//! `survivors.txt`: one line each, `shader :: line :: edit :: reason`. The line's text stands for its number, so that the list holds when
//! lines move; `@2` after the edit means the second line that reads so.

use std::collections::BTreeMap;
use std::path::Path;

use crate::edits::Edit;

/// What an entry is matched by.
pub fn key(shader: &str, edit: &Edit) -> String {
    let nth = if edit.nth_line > 1 { format!("@{}", edit.nth_line) } else { String::new() };
    format!("{shader} :: {} :: {}{nth}", edit.text, edit.what)
}

/// Key → reason.
pub fn read(path: &Path) -> Result<BTreeMap<String, String>, String> {
    let mut all = BTreeMap::new();
    for line in crate::read(path)?.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (key, reason) =
            line.rsplit_once(" :: ").filter(|(key, _)| key.matches(" :: ").count() == 2).ok_or_else(|| format!("survivors.txt: {line}"))?;
        if reason.len() < 20 || all.insert(key.to_string(), reason.to_string()).is_some() {
            return Err(format!("survivors.txt: no reason, or twice: {line}"));
        }
    }
    Ok(all)
}

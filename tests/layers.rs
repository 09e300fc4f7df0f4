//! The layers: plain data, then the two backends, then devices and tensors, then ops. A module names only what lies below it; `gpu` and
//! `cpu` never name each other, nor do an op's `gpu.rs` and `cpu.rs`. Read from the source text; comments and strings don't count.

use std::collections::BTreeMap;
use std::path::Path;

/// Every module of the crate and its layer.
const LAYERS: [(&str, u32); 12] = [
    ("error", 0),
    ("dtype", 0),
    ("layout", 0),
    ("philox", 0),
    ("platform", 0),
    ("gpu", 1),
    ("cpu", 1),
    ("device", 2),
    ("tensor", 2),
    ("blocking", 2),
    ("interop", 2),
    ("ops", 3),
];

fn layer(module: &str) -> Option<u32> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// Identifiers, `::` and other single characters, without comments and literals.
fn tokens(source: &str) -> Vec<String> {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\n');
    let mut found = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        match (at(i), at(i + 1)) {
            ('/', '/') => i += chars[i..].iter().take_while(|c| **c != '\n').count(),
            ('/', '*') => i += 2 + chars[i + 2..].windows(2).take_while(|pair| *pair != ['*', '/']).count() + 2,
            ('"', _) => {
                i += 1;
                while i < chars.len() && at(i) != '"' {
                    i += if at(i) == '\\' { 2 } else { 1 };
                }
                i += 1;
            }
            // A character, not a lifetime.
            ('\'', '\\') => i += 3 + chars[i + 3..].iter().take_while(|c| **c != '\'').count() + 1,
            ('\'', _) if at(i + 2) == '\'' => i += 3,
            (':', ':') => {
                found.push("::".into());
                i += 2;
            }
            (c, _) if c.is_alphanumeric() || c == '_' => {
                let word: String = chars[i..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').collect();
                i += word.chars().count();
                found.push(word);
            }
            (c, _) => {
                if !c.is_whitespace() {
                    found.push(c.into());
                }
                i += 1;
            }
        }
    }
    found
}

/// Reads one path or `use` tree that begins at `i`; gives the place after it.
fn tree(tokens: &[String], mut i: usize, mut path: Vec<String>, out: &mut Vec<Vec<String>>) -> usize {
    let is = |i: usize, text: &str| tokens.get(i).is_some_and(|token| token == text);
    loop {
        if is(i, "{") {
            i += 1;
            while i < tokens.len() && !is(i, "}") {
                i = tree(tokens, i, path.clone(), out);
                // `as NAME` and the comma.
                while i < tokens.len() && !is(i, ",") && !is(i, "}") {
                    i += 1;
                }
                i += usize::from(is(i, ","));
            }
            return i + 1;
        }
        let Some(segment) = tokens.get(i) else { break };
        // `super` climbs; other segments descend.
        if segment == "super" {
            path.pop();
        } else if segment != "self" {
            path.push(segment.clone());
        }
        i += 1;
        let more = is(i, "::")
            && tokens.get(i + 1).is_some_and(|t| t == "{" || t == "*" || t.starts_with(|c: char| c.is_alphabetic() || c == '_'));
        if !more {
            break;
        }
        i += 1;
    }
    out.push(path);
    i
}

/// Every path in a file that begins with `crate`, `super` or `self`, from the crate's root.
fn paths(file: &str, tokens: &[String]) -> Vec<Vec<String>> {
    let stem = file.strip_prefix("src/").and_then(|f| f.strip_suffix(".rs")).expect("a source file");
    let mut here: Vec<String> = stem.split('/').filter(|part| *part != "mod" && *part != "lib").map(String::from).collect();
    // Modules inside the file: how deep the braces were where each began.
    let (mut inner, mut depth) = (Vec::new(), 0);
    let mut out = Vec::new();
    let mut i = 0;
    while let Some(token) = tokens.get(i) {
        let starts = tokens.get(i + 1).is_some_and(|next| next == "::") && (i == 0 || tokens[i - 1] != "::");
        match token.as_str() {
            "crate" if starts => i = tree(tokens, i + 2, Vec::new(), &mut out),
            "super" | "self" if starts => i = tree(tokens, i, here.clone(), &mut out),
            "mod" if tokens.get(i + 2).is_some_and(|next| next == "{") => {
                here.push(tokens[i + 1].clone());
                inner.push(depth);
                depth += 1;
                i += 3;
            }
            brace => {
                match brace {
                    "{" => depth += 1,
                    "}" => depth -= 1,
                    _ => {}
                }
                if inner.last() == Some(&depth) {
                    inner.pop();
                    here.pop();
                }
                i += 1;
            }
        }
    }
    out
}

/// Who owns each name at the crate's root: modules, what `lib.rs` re-exports from them, exported macros.
fn owners(sources: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut owners = BTreeMap::new();
    let lib = tokens(&sources["src/lib.rs"]);
    for (i, token) in lib.iter().enumerate() {
        match token.as_str() {
            "mod" => {
                owners.insert(lib[i + 1].clone(), lib[i + 1].clone());
            }
            "use" => {
                let mut found = Vec::new();
                tree(&lib, i + 1, Vec::new(), &mut found);
                owners.extend(found.into_iter().map(|path| (path[path.len() - 1].clone(), path[0].clone())));
            }
            _ => {}
        }
    }
    for (file, text) in sources {
        let tokens = tokens(text);
        for (i, _) in tokens.iter().enumerate().filter(|(_, token)| *token == "macro_rules") {
            owners.entry(tokens[i + 2].clone()).or_insert_with(|| module_of(file));
        }
    }
    owners
}

/// The module at the crate's root that a file belongs to.
fn module_of(file: &str) -> String {
    file.trim_start_matches("src/").trim_end_matches(".rs").split('/').next().unwrap_or_default().to_string()
}

/// Everything in a file that breaks a rule.
fn violations(file: &str, text: &str, owners: &BTreeMap<String, String>) -> Vec<String> {
    let tokens = tokens(text);
    let from = module_of(file);
    let mut found = Vec::new();
    for path in paths(file, &tokens) {
        let Some(first) = path.first() else { continue };
        let Some(to) = owners.get(first) else {
            found.push(format!("{file} names {}, which nobody is known to own", path.join("::")));
            continue;
        };
        let (above, below) = (layer(&from), layer(to));
        let beside = (from == "gpu" && to == "cpu") || (from == "cpu" && to == "gpu");
        if above.is_none() || below.is_none() || below > above || beside {
            found.push(format!("{file} names {} (of {to})", path.join("::")));
        }
    }
    // The two halves of an op, by whatever path.
    let other = match (from.as_str(), file.rsplit('/').next()) {
        ("ops", Some("gpu.rs")) => "cpu",
        ("ops", Some("cpu.rs")) => "gpu",
        _ => return found,
    };
    let full = paths(file, &tokens).iter().any(|path| path.iter().any(|segment| segment == other));
    let relative = tokens.windows(2).any(|pair| pair.contains(&other.to_string()) && pair.contains(&"::".to_string()));
    if full || relative {
        found.push(format!("{file} names a module `{other}`"));
    }
    found
}

/// Every file of `src/`, by its path.
fn sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src")];
    let mut found = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let name = path.strip_prefix(root).expect("below it").to_string_lossy().replace('\\', "/");
                found.insert(name, std::fs::read_to_string(&path).expect("UTF-8"));
            }
        }
    }
    found
}

#[test]
fn dependencies_point_downward() {
    let sources = sources();
    let owners = owners(&sources);
    for file in sources.keys().filter(|file| *file != "src/lib.rs") {
        assert!(layer(&module_of(file)).is_some(), "{file} is in no layer: list its module");
    }
    let found: Vec<String> =
        sources.iter().filter(|(file, _)| *file != "src/lib.rs").flat_map(|(file, text)| violations(file, text, &owners)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_scanner_bites() {
    let owners = owners(&sources());
    let bad = [
        ("src/layout.rs", "use crate::ops::cast;"),
        ("src/dtype.rs", "use crate::Tensor;"),
        ("src/dtype.rs", "use super::device::Device;"),
        ("src/error.rs", "mod tests { use super::super::Device; }"),
        ("src/philox.rs", "use crate::*;"),
        ("src/platform.rs", "/* a */ fn f() -> crate :: gpu::Caps { todo!() }"),
        ("src/gpu/mod.rs", "use crate::{DType, cpu::CpuBuffer};"),
        ("src/gpu/stream.rs", "use super::super::tensor::Tensor;"),
        ("src/gpu/stream.rs", "mod a { mod b {} } use super::super::ops;"),
        ("src/cpu/mod.rs", "fn f() { if 'x' == '\"' { crate::gpu::fold(1) } }"),
        ("src/tensor.rs", "use crate::{gpu::{Caps, Kernel}, DType as D, ops::{self, Op}};"),
        ("src/device.rs", "fn f() { let a = \"\\\"\"; crate::ops::add() }"),
        ("src/ops/softmax/gpu.rs", "use super::cpu::softmax;"),
        ("src/ops/softmax/gpu.rs", "use super::{Problem, cpu};"),
        ("src/ops/softmax/gpu.rs", "use crate::cpu::CHUNK;"),
        ("src/ops/softmax/cpu.rs", "use crate::ops::softmax::gpu::Params;"),
        ("src/ops/cast/gpu.rs", "use crate::ops::copy; fn f() { copy::cpu::gather() }"),
        ("src/ops/cast/cpu.rs", "use crate::new_thing;"),
    ];
    for (file, text) in bad {
        assert!(!violations(file, text, &owners).is_empty(), "not seen in {file}: {text}");
    }
    let good = [
        ("src/dtype.rs", "/// [`cast`](crate::ops::cast), \"\n//! crate::Tensor\nconst A: &str = \"crate::ops\"; /* crate::gpu */"),
        ("src/error.rs", "use crate::DType; use super::dtype::Element;"),
        ("src/gpu/kernel.rs", "use super::Caps; use crate::{DType, Layout}; mod tests { use super::*; }"),
        ("src/cpu/mod.rs", "use crate::error::{Error, Result};"),
        ("src/tensor.rs", "fn f<'a>(x: &'a crate::Device) { crate::cpu::f(self.gpu, crate::gpu::g::<crate::Layout>()) }"),
        ("src/ops/softmax/gpu.rs", "use super::Problem; crate::params! { struct A { cpu: u32, } }"),
        ("src/ops/softmax/cpu.rs", "use crate::cpu::CHUNK; fn f(gpu: u32) { gpu + 1; }"),
        ("src/ops/softmax/mod.rs", "mod cpu; pub mod gpu; fn f() { cpu::f(); gpu::f(); crate::ops::copy::gpu::f() }"),
    ];
    for (file, text) in good {
        assert_eq!(violations(file, text, &owners), [""; 0], "in {file}: {text}");
    }
}

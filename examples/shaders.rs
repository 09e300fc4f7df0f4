//! Writes every kernel as the driver gets it: `cargo run --release --example shaders -- DIR`.
//!
//! For each kernel and spec `DIR/<kernel>.<spec>.wgsl` is the final text, every constant in place; `.json` beside it says what a host
//! must know to run it without this crate. No GPU is needed.

#[cfg(feature = "gpu")]
#[path = "../tests/shaders/reflect.rs"]
mod reflect;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [directory] = arguments.as_slice() else {
        eprintln!("usage: cargo run --release --example shaders -- DIR (made if it is not there)");
        return ExitCode::from(2);
    };
    let directory = Path::new(directory);
    match dump_all(directory) {
        Ok(count) => {
            println!("{count} shaders, each .wgsl and .json, in {}", directory.display());
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("shaders: {message}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(feature = "gpu"))]
fn dump_all(_directory: &Path) -> Result<usize, String> {
    Err("built without the feature `gpu`, so there are no kernels: build with it (it is on by default)".into())
}

#[cfg(feature = "gpu")]
use dump::dump_all;

#[cfg(feature = "gpu")]
mod dump {
    use std::path::Path;

    use gristmill::gpu::{Kernel, Spec};
    use gristmill::ops;
    use serde_json::{Map, Value, json};

    use super::reflect;

    pub fn dump_all(directory: &Path) -> Result<usize, String> {
        std::fs::create_dir_all(directory).map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
        let mut count = 0;
        for kernel in ops::kernels() {
            for spec in kernel.specs() {
                dump(directory, kernel, &spec).map_err(|message| format!("{}.{spec}: {message}", kernel.name))?;
                count += 1;
            }
        }
        Ok(count)
    }

    fn dump(directory: &Path, kernel: &Kernel, spec: &Spec) -> Result<(), String> {
        let text = kernel.compose(spec).map_err(|error| error.to_string())?;
        let (module, _, features) = reflect::parse(&text)?;
        let entry = &module.entry_points[0];
        let dtypes: Vec<_> = spec.dtypes.iter().map(|dtype| dtype.name()).collect();
        let bytes = reflect::workgroup_bytes(&module)?;
        let facts = json!({
            "kernel": kernel.name,
            "entry_point": entry.name,
            "workgroup_size": entry.workgroup_size,
            "workgroup_bytes": bytes,
            "dtypes": dtypes,
            "tune": constants(spec),
            "features": features,
        });
        let stem = format!("{}.{spec}", kernel.name);
        write(&directory.join(format!("{stem}.wgsl")), &text)?;
        write(&directory.join(format!("{stem}.json")), &format!("{facts:#}\n"))?;
        println!("{stem:<44} workgroup {:>3}  memory {bytes:>5} bytes", entry.workgroup_size.iter().product::<u32>());
        Ok(())
    }

    /// The name of the tune (and of the variant, where the kernel has several), and the constants that they set.
    fn constants(spec: &Spec) -> Value {
        let mut all = Map::new();
        all.insert("name".into(), spec.tune.name.into());
        if !spec.variant.name.is_empty() {
            all.insert("variant".into(), spec.variant.name.into());
        }
        for (name, value) in spec.variant.values.iter().chain(spec.tune.values) {
            all.insert((*name).into(), (*value).into());
        }
        Value::Object(all)
    }

    fn write(path: &Path, text: &str) -> Result<(), String> {
        std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
    }
}

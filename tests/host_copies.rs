//! How much host memory interop takes, counted by the allocator. A binary of its own with one test: nothing else allocates meanwhile.

mod counting;

use counting::asked;
use gristmill::{DType, Device, Error, Tensor};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// The tensor's bytes, and how much may come on top: far less than another copy.
const BYTES: usize = 16 << 20;
const SLACK: usize = 2 << 20;

/// Runs it; its result, and the bytes that were asked for meanwhile.
fn counted<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = asked();
    let result = run();
    (result, asked() - before)
}

#[expect(dead_code, reason = "the ops' tests use more of it")]
#[path = "ops/support/devices.rs"]
mod support;

/// The CPU and every GPU adapter that is there, and those that must be.
fn devices() -> impl Iterator<Item = &'static Device> {
    support::subjects().iter().filter_map(|subject| {
        assert!(subject.device.is_ok() || !support::is_required(subject), "{}: {:?}", subject.name, subject.device);
        subject.device.as_ref().ok()
    })
}

#[test]
fn no_second_copy() {
    // The counter counts.
    let (vector, asked) = counted(|| vec![1u8; BYTES]);
    assert!((BYTES..BYTES + SLACK).contains(&asked), "{asked} bytes for a vector of {}", vector.len());

    let bytes: Vec<u8> = (0..BYTES).map(|i| (i * 7 + i / 251) as u8).collect();
    let path = std::env::temp_dir().join(format!("gristmill-copies-{}.safetensors", std::process::id()));
    for device in devices() {
        // What a device needs once is not counted.
        let warm = Tensor::full(device, 1.0f32, &[4]).and_then(|x| x.to_safetensors()).expect("a device that works");
        assert_eq!(warm.bytes()[..4], 1.0f32.to_le_bytes());

        // In: the storage alone on the CPU, nothing at all for a GPU, whose buffer is mapped.
        let storage = if device.is_cpu() { BYTES } else { 0 };
        let view = TensorView::new(Dtype::BF16, vec![BYTES / 2], &bytes).expect("a view");
        let (x, asked) = counted(|| Tensor::from_safetensors(device, &view).expect("in"));
        assert!((storage..storage + SLACK).contains(&asked), "from_safetensors took {asked} bytes on {device}");

        // Out: nothing at all on the CPU, the readback from a GPU.
        let readback = BYTES - storage;
        let (host, asked) = counted(|| x.to_safetensors().expect("out"));
        assert!((readback..readback + SLACK).contains(&asked), "to_safetensors took {asked} bytes on {device}");
        assert!(host.bytes() == bytes, "other bytes out of {device}");
        let (part, asked) = counted(|| x.narrow(0, 8..BYTES / 2).and_then(|x| x.to_safetensors()).expect("out"));
        assert!((readback.saturating_sub(16)..readback + SLACK).contains(&asked), "a dense view took {asked} bytes on {device}");
        assert!(part.bytes() == &bytes[16..]);
        drop(part);

        // Into a file: the writer's buffer. Into memory: the file's bytes.
        let (written, asked) = counted(|| safetensors::serialize_to_file([("x", &host)], None, &path));
        written.expect("written");
        assert!(asked < SLACK, "serialize_to_file took {asked} bytes on {device}");
        let file = std::fs::read(&path).expect("read");
        std::fs::remove_file(&path).expect("removed");
        let (in_memory, asked) = counted(|| safetensors::serialize([("x", host)], None).expect("serialised"));
        assert!((BYTES..BYTES + SLACK).contains(&asked), "serialize took {asked} bytes on {device}");
        assert!(in_memory == file);
        assert!(SafeTensors::deserialize(&file).and_then(|all| all.tensor("x").map(|x| x.data() == bytes)).expect("parsed"));

        // .npy: out as safetensors are. In by doubling, so at most three times in all, and into the CPU's storage without a copy.
        let words = Tensor::from_slice(device, &vec![3u32; BYTES / 4], &[BYTES / 4]).expect("a tensor");
        let mut file = Vec::with_capacity(BYTES + SLACK);
        let (written, asked) = counted(|| words.write_npy(&mut file));
        written.expect("written");
        assert!((readback..readback + SLACK).contains(&asked), "write_npy took {asked} bytes on {device}");
        let (again, asked) = counted(|| Tensor::read_npy(device, &file[..]).expect("in"));
        assert!(asked < 2 * BYTES + SLACK, "read_npy took {asked} bytes on {device}");
        assert_eq!(again.dtype(), DType::U32);

        // A header that promises a tebibyte gets no more than a piece.
        let start = file.iter().position(|&byte| byte == b'(').expect("a shape");
        let mut liar = file[..128].to_vec();
        liar[start..start + 16].copy_from_slice(b"(274877906944,)}");
        let (refused, asked) = counted(|| Tensor::read_npy(device, &liar[..]));
        assert!(matches!(&refused, Err(Error::Format { problem, .. }) if problem.contains("1099511627776 bytes")), "{refused:?}");
        assert!(asked < SLACK, "a lying header took {asked} bytes on {device}");
    }
}

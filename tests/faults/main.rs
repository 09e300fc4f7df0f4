//! Faults by the thousand: a Vulkan layer (`layer.rs`) makes the driver fail at the n-th call of a kind, in the middle of random programs of
//! ops; also devices that are destroyed under way, and threads that use a device while it dies.
//!
//! After each fault: nothing panicked; every result that came is right; the first error is of the fault's kind; after a loss every call says
//! so at once; dropping all of it neither hangs nor panics; and the next device, opened in the same process, gives right results.

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("the layer is for the Vulkan loader of Linux");
}

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod program;
#[cfg(target_os = "linux")]
mod support;
#[cfg(target_os = "linux")]
mod trials;

#[cfg(target_os = "linux")]
fn main() {
    support::enable_layer();
    support::quiet_wgpu();
    let mut arguments = libtest_mimic::Arguments::from_args();
    // The layer is the process'.
    arguments.test_threads = Some(1);
    let conclusion = libtest_mimic::run(&arguments, trials::all());
    println!("{} faults injected", support::fired());
    if !arguments.list && arguments.filter.is_none() && support::has_adapter() && support::fired() < trials::PROMISED {
        eprintln!("fewer than {} faults", trials::PROMISED);
        std::process::exit(101);
    }
    conclusion.exit();
}

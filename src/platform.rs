//! The one seam for what wasm32 lacks: environment variables, blocking, clocks, threads. Nothing else asks which target this is, but for
//! `blocking.rs`, which is left out there.

/// The value of an environment variable; the browser has none.
pub(crate) fn env_var(name: &str) -> Option<String> {
    // What is not UTF-8 is no valid value either: it must be refused, not ignored.
    let value = std::env::var_os(name)?.to_string_lossy().into_owned();
    (!value.is_empty()).then_some(value)
}

/// Who sees to it that the device makes progress while a future waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// This thread, now: the future is ready when it is first polled. For the blocking calls.
    #[cfg(not(target_arch = "wasm32"))]
    Here,
    /// Somebody else: a thread of its own on native, the event loop in a browser.
    Apart,
}

/// Runs a future to its end on this thread.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    pollster::block_on(future)
}

/// Whether a browser's event loop polls devices, calls callbacks, and has every shader checked.
#[cfg(feature = "gpu")]
pub(crate) const EVENT_LOOP: bool = cfg!(target_arch = "wasm32");

/// A wgpu instance.
#[cfg(feature = "gpu")]
pub(crate) fn instance(backends: wgpu::Backends) -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends;
    descriptor.flags = wgpu::InstanceFlags::empty();
    wgpu::Instance::new(descriptor)
}

/// The process' own: a buffer of one instance means another in the next, and wgpu tells devices of one instance apart alone.
#[cfg(feature = "gpu")]
pub(crate) fn shared_instance(backends: wgpu::Backends) -> wgpu::Instance {
    #[cfg(not(target_arch = "wasm32"))]
    {
        static SHARED: std::sync::OnceLock<wgpu::Instance> = std::sync::OnceLock::new();
        SHARED.get_or_init(|| instance(backends)).clone()
    }
    #[cfg(target_arch = "wasm32")]
    instance(backends)
}

/// Whether wgpu answers error scopes at once. A browser answers later: there errors go through the uncaptured handler.
#[cfg(feature = "gpu")]
pub(crate) const SCOPES_ANSWER: bool = cfg!(not(target_arch = "wasm32"));

/// The result of a future that is ready at once.
#[cfg(feature = "gpu")]
pub(crate) fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}

/// Runs a job elsewhere; here if there are no threads left. In a browser not at all: its event loop does what the job is for.
#[cfg(feature = "gpu")]
pub(crate) fn run_apart(job: impl FnOnce() + Send + 'static) {
    #[cfg(not(target_arch = "wasm32"))]
    {
        // The job is shared so that it survives a failed spawn.
        let job = std::sync::Arc::new(std::sync::Mutex::new(Some(job)));
        let for_thread = job.clone();
        let take = |job: &std::sync::Mutex<Option<_>>| job.lock().ok().and_then(|mut job| job.take());
        let spawned = std::thread::Builder::new().name("gristmill-poll".into()).spawn(move || {
            if let Some(job) = take(&for_thread) {
                job();
            }
        });
        if spawned.is_err()
            && let Some(job) = take(&job)
        {
            job();
        }
    }
    #[cfg(target_arch = "wasm32")]
    drop(job);
}

/// How long ago it was started.
#[cfg(feature = "gpu")]
pub(crate) struct Stopwatch(#[cfg(not(target_arch = "wasm32"))] std::time::Instant);

#[cfg(feature = "gpu")]
impl Stopwatch {
    pub(crate) fn start() -> Self {
        Stopwatch(
            #[cfg(not(target_arch = "wasm32"))]
            std::time::Instant::now(),
        )
    }

    pub(crate) fn elapsed(&self) -> std::time::Duration {
        #[cfg(not(target_arch = "wasm32"))]
        return self.0.elapsed();
        #[cfg(target_arch = "wasm32")]
        std::time::Duration::ZERO
    }
}

//! The one seam for what wasm32 has no equivalent of: blocking, clocks, environment variables.

/// The value of an environment variable; the browser has none.
pub(crate) fn env_var(name: &str) -> Option<String> {
    #[cfg(not(target_arch = "wasm32"))]
    {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }
    #[cfg(target_arch = "wasm32")]
    {
        let _ = name;
        None
    }
}

/// Runs a future to its end on this thread. In a browser nothing may block: there the `_async` twins are the way in.
#[cfg(all(feature = "gpu", not(target_arch = "wasm32")))]
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    pollster::block_on(future)
}

/// A point in time and how long ago it was.
#[cfg(all(feature = "gpu", not(target_arch = "wasm32")))]
pub(crate) struct Stopwatch(std::time::Instant);

#[cfg(all(feature = "gpu", not(target_arch = "wasm32")))]
impl Stopwatch {
    pub(crate) fn start() -> Self {
        Stopwatch(std::time::Instant::now())
    }

    pub(crate) fn elapsed(&self) -> std::time::Duration {
        self.0.elapsed()
    }
}

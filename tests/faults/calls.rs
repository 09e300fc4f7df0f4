//! What can be made to fail, and how: the layer and the tests agree by this file.

/// The calls, of a kind each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Submit,
    Wait,
    Allocate,
    Pipeline,
    Module,
    Buffer,
    Map,
    Device,
    Descriptors,
    Commands,
}

impl Call {
    /// In order: a call goes through the layer's C interface as its number.
    #[allow(dead_code, reason = "the layer's side")]
    pub const ALL: [Call; 10] = [
        Call::Submit,
        Call::Wait,
        Call::Allocate,
        Call::Pipeline,
        Call::Module,
        Call::Buffer,
        Call::Map,
        Call::Device,
        Call::Descriptors,
        Call::Commands,
    ];
}

/// What becomes of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// VK_ERROR_DEVICE_LOST, from then on.
    Lost,
    /// VK_ERROR_OUT_OF_DEVICE_MEMORY, once.
    OutOfMemory,
    /// The same for every call of the kind from then on.
    Exhausted,
    /// A submission that never ends.
    Hung,
    /// A submission that is reported as done without having run, as some drivers report what they killed.
    Killed,
    /// 300 ms late.
    Late,
}

impl How {
    /// In order.
    #[allow(dead_code, reason = "the layer's side")]
    pub const ALL: [How; 6] = [How::Lost, How::OutOfMemory, How::Exhausted, How::Hung, How::Killed, How::Late];
}

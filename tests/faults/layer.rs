//! A Vulkan layer that makes a driver fail on demand: a library of its own (`cargo build --example fault_layer`), which the Vulkan loader
//! puts between wgpu and the driver, and `tests/faults/main.rs` arms through [`gristmill_arm`].
//!
//! It intercepts the calls that the Vulkan specification lets fail and that wgpu makes. A fault is armed for the n-th call of a kind from
//! then on. What follows a loss is as the specification has it (5.2.3, Lost Device): submissions and waits of that device keep failing.
//! Work that was accepted before is waited for, so that nothing runs on memory that its owner frees.

#![allow(non_snake_case, reason = "the loader looks for Vulkan's names")]

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ash::vk::{self, Handle};
use calls::{Call, How};

mod calls;

struct Armed {
    call: Call,
    /// So many calls go well before.
    left: u32,
    how: How,
    /// Whether it was counted.
    fired: bool,
}

static ARMED: Mutex<Option<Armed>> = Mutex::new(None);
static FIRED: AtomicU32 = AtomicU32::new(0);

/// Arms a fault for the `nth` call (from 0) of a kind; a `call` past the end disarms.
#[unsafe(no_mangle)]
pub extern "C" fn gristmill_arm(call: u32, nth: u32, how: u32) {
    let fault = Call::ALL.get(call as usize).zip(How::ALL.get(how as usize));
    *lock(&ARMED) = fault.map(|(&call, &how)| Armed { call, left: nth, how, fired: false });
}

/// Faults that have happened.
#[unsafe(no_mangle)]
pub extern "C" fn gristmill_fired() -> u32 {
    FIRED.load(Ordering::SeqCst)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts a call; what is to become of it.
fn fault(call: Call) -> Option<How> {
    let mut armed = lock(&ARMED);
    let fault = armed.as_mut().filter(|fault| fault.call == call)?;
    if fault.left > 0 {
        fault.left -= 1;
        return None;
    }
    let how = fault.how;
    if !std::mem::replace(&mut fault.fired, true) {
        FIRED.fetch_add(1, Ordering::SeqCst);
    }
    if how != How::Exhausted {
        *armed = None;
    }
    Some(how)
}

/// An instance's next layer, or the driver.
#[derive(Clone, Copy)]
struct Instance {
    next: vk::PFN_vkGetInstanceProcAddr,
    handle: vk::Instance,
}

#[derive(Clone, Copy)]
struct Device {
    next: vk::PFN_vkGetDeviceProcAddr,
    handle: vk::Device,
    lost: bool,
    hung: bool,
}

static INSTANCES: LazyLock<Mutex<HashMap<usize, Instance>>> = LazyLock::new(Mutex::default);
static DEVICES: LazyLock<Mutex<HashMap<usize, Device>>> = LazyLock::new(Mutex::default);

/// The loader's dispatch table, which an instance shares with its physical devices, and a device with its queues.
unsafe fn key(handle: u64) -> usize {
    // SAFETY: a dispatchable handle points to a struct that begins with that pointer (LoaderLayerInterface.md).
    unsafe { *(handle as *const usize) }
}

unsafe fn instance_of(handle: u64) -> Option<Instance> {
    // SAFETY: the caller's.
    lock(&INSTANCES).get(&unsafe { key(handle) }).copied()
}

unsafe fn device_of(handle: u64) -> Option<Device> {
    // SAFETY: the caller's.
    lock(&DEVICES).get(&unsafe { key(handle) }).copied()
}

impl Device {
    /// The next layer's function of a name.
    ///
    /// # Safety
    /// `T` is that function's type.
    unsafe fn call<T: Copy>(&self, name: &CStr) -> T {
        // SAFETY: the handle is alive while it is in the table; the type is the caller's promise.
        unsafe {
            let found = (self.next)(self.handle, name.as_ptr()).expect("the driver has what wgpu calls");
            std::mem::transmute_copy::<unsafe extern "system" fn(), T>(&found)
        }
    }

    fn mark(&self, change: impl Fn(&mut Device)) {
        // SAFETY: the handle is alive while it is in the table.
        if let Some(device) = lock(&DEVICES).get_mut(&unsafe { key(self.handle.as_raw()) }) {
            change(device);
        }
    }

    /// Lost from now on; what it runs is waited for.
    fn lose(&self) -> vk::Result {
        self.mark(|device| device.lost = true);
        // SAFETY: the name's type; wgpu may use the queue elsewhere, which this driver bears.
        let _ = unsafe { self.call::<vk::PFN_vkDeviceWaitIdle>(c"vkDeviceWaitIdle")(self.handle) };
        vk::Result::ERROR_DEVICE_LOST
    }

    /// What becomes of a call that makes something or of a wait; `None` if it goes well.
    fn failure(&self, call: Call) -> Option<vk::Result> {
        match fault(call)? {
            How::Lost => Some(self.lose()),
            How::OutOfMemory | How::Exhausted => Some(vk::Result::ERROR_OUT_OF_DEVICE_MEMORY),
            How::Late => {
                std::thread::sleep(Duration::from_millis(300));
                None
            }
            How::Hung | How::Killed => None,
        }
    }

    /// A wait: failed, or one that ends no sooner than its timeout.
    fn waited(&self, timeout: u64) -> Option<vk::Result> {
        if self.lost {
            return Some(vk::Result::ERROR_DEVICE_LOST);
        }
        if self.hung {
            let clock = Instant::now();
            while clock.elapsed() < Duration::from_nanos(timeout) {
                if clock.elapsed() > Duration::from_secs(30) {
                    eprintln!("fault_layer: a wait of over 30 s on a device that hangs");
                    std::process::abort();
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            return Some(vk::Result::TIMEOUT);
        }
        self.failure(Call::Wait)
    }
}

unsafe extern "system" fn QueueSubmit(queue: vk::Queue, count: u32, submits: *const vk::SubmitInfo<'_>, fence: vk::Fence) -> vk::Result {
    // SAFETY: the caller's arguments are valid for the call (the specification); they are passed on, or with fewer command buffers.
    unsafe {
        let Some(device) = device_of(queue.as_raw()) else { return vk::Result::ERROR_DEVICE_LOST };
        if device.lost {
            return vk::Result::ERROR_DEVICE_LOST;
        }
        if device.hung {
            return vk::Result::SUCCESS;
        }
        let next = device.call::<vk::PFN_vkQueueSubmit>(c"vkQueueSubmit");
        match fault(Call::Submit) {
            Some(How::Lost) => device.lose(),
            Some(How::OutOfMemory | How::Exhausted) => vk::Result::ERROR_OUT_OF_DEVICE_MEMORY,
            Some(How::Hung) => {
                device.mark(|device| device.hung = true);
                vk::Result::SUCCESS
            }
            Some(How::Killed) => {
                let mut empty = std::slice::from_raw_parts(submits, count as usize).to_vec();
                empty.iter_mut().for_each(|submit| submit.command_buffer_count = 0);
                next(queue, count, empty.as_ptr(), fence)
            }
            Some(How::Late) => {
                std::thread::sleep(Duration::from_millis(300));
                next(queue, count, submits, fence)
            }
            None => next(queue, count, submits, fence),
        }
    }
}

unsafe extern "system" fn QueueWaitIdle(queue: vk::Queue) -> vk::Result {
    // SAFETY: passed on as it came.
    unsafe {
        let Some(device) = device_of(queue.as_raw()) else { return vk::Result::ERROR_DEVICE_LOST };
        device.waited(u64::MAX).unwrap_or_else(|| device.call::<vk::PFN_vkQueueWaitIdle>(c"vkQueueWaitIdle")(queue))
    }
}

unsafe extern "system" fn DeviceWaitIdle(handle: vk::Device) -> vk::Result {
    // SAFETY: passed on as it came.
    unsafe {
        let Some(device) = device_of(handle.as_raw()) else { return vk::Result::ERROR_DEVICE_LOST };
        device.waited(u64::MAX).unwrap_or_else(|| device.call::<vk::PFN_vkDeviceWaitIdle>(c"vkDeviceWaitIdle")(handle))
    }
}

/// Functions of a device that fail, or go on as they came.
macro_rules! passed_on {
    ($($name:ident as $vk:ident $symbol:literal ($($argument:ident: $type:ty),*) = |$device:ident| $failure:expr;)*) => {
        $(unsafe extern "system" fn $name(handle: vk::Device, $($argument: $type),*) -> vk::Result {
            // SAFETY: passed on as it came.
            unsafe {
                let Some($device) = device_of(handle.as_raw()) else { return vk::Result::ERROR_DEVICE_LOST };
                $failure.unwrap_or_else(|| $device.call::<vk::$vk>($symbol)(handle, $($argument),*))
            }
        })*
    };
}

passed_on! {
    WaitForFences as PFN_vkWaitForFences c"vkWaitForFences"
        (count: u32, fences: *const vk::Fence, all: vk::Bool32, timeout: u64) = |device| device.waited(timeout);
    WaitSemaphores as PFN_vkWaitSemaphores c"vkWaitSemaphores"
        (info: *const vk::SemaphoreWaitInfo<'_>, timeout: u64) = |device| device.waited(timeout);
    WaitSemaphoresKHR as PFN_vkWaitSemaphores c"vkWaitSemaphoresKHR"
        (info: *const vk::SemaphoreWaitInfo<'_>, timeout: u64) = |device| device.waited(timeout);
    GetFenceStatus as PFN_vkGetFenceStatus c"vkGetFenceStatus"
        (fence: vk::Fence) = |device| device.lost.then_some(vk::Result::ERROR_DEVICE_LOST);
    GetSemaphoreCounterValue as PFN_vkGetSemaphoreCounterValue c"vkGetSemaphoreCounterValue"
        (semaphore: vk::Semaphore, value: *mut u64) = |device| device.lost.then_some(vk::Result::ERROR_DEVICE_LOST);
    GetSemaphoreCounterValueKHR as PFN_vkGetSemaphoreCounterValue c"vkGetSemaphoreCounterValueKHR"
        (semaphore: vk::Semaphore, value: *mut u64) = |device| device.lost.then_some(vk::Result::ERROR_DEVICE_LOST);
    AllocateMemory as PFN_vkAllocateMemory c"vkAllocateMemory"
        (info: *const vk::MemoryAllocateInfo<'_>, host: *const vk::AllocationCallbacks<'_>, memory: *mut vk::DeviceMemory)
        = |device| device.failure(Call::Allocate);
    CreateComputePipelines as PFN_vkCreateComputePipelines c"vkCreateComputePipelines"
        (cache: vk::PipelineCache, count: u32, infos: *const vk::ComputePipelineCreateInfo<'_>, host: *const vk::AllocationCallbacks<'_>,
         pipelines: *mut vk::Pipeline)
        = |device| device.failure(Call::Pipeline).inspect(|_| pipelines.write_bytes(0, count as usize));
    CreateShaderModule as PFN_vkCreateShaderModule c"vkCreateShaderModule"
        (info: *const vk::ShaderModuleCreateInfo<'_>, host: *const vk::AllocationCallbacks<'_>, module: *mut vk::ShaderModule)
        = |device| device.failure(Call::Module);
    CreateBuffer as PFN_vkCreateBuffer c"vkCreateBuffer"
        (info: *const vk::BufferCreateInfo<'_>, host: *const vk::AllocationCallbacks<'_>, buffer: *mut vk::Buffer)
        = |device| device.failure(Call::Buffer);
    MapMemory as PFN_vkMapMemory c"vkMapMemory"
        (memory: vk::DeviceMemory, offset: u64, size: u64, flags: vk::MemoryMapFlags, data: *mut *mut c_void)
        = |device| device.failure(Call::Map);
    AllocateDescriptorSets as PFN_vkAllocateDescriptorSets c"vkAllocateDescriptorSets"
        (info: *const vk::DescriptorSetAllocateInfo<'_>, sets: *mut vk::DescriptorSet) = |device| device.failure(Call::Descriptors);
    CreateDescriptorPool as PFN_vkCreateDescriptorPool c"vkCreateDescriptorPool"
        (info: *const vk::DescriptorPoolCreateInfo<'_>, host: *const vk::AllocationCallbacks<'_>, pool: *mut vk::DescriptorPool)
        = |device| device.failure(Call::Descriptors);
    AllocateCommandBuffers as PFN_vkAllocateCommandBuffers c"vkAllocateCommandBuffers"
        (info: *const vk::CommandBufferAllocateInfo<'_>, buffers: *mut vk::CommandBuffer) = |device| device.failure(Call::Commands);
}

unsafe extern "system" fn BeginCommandBuffer(commands: vk::CommandBuffer, info: *const vk::CommandBufferBeginInfo<'_>) -> vk::Result {
    // SAFETY: passed on as it came.
    unsafe {
        let Some(device) = device_of(commands.as_raw()) else { return vk::Result::ERROR_DEVICE_LOST };
        let next = || device.call::<vk::PFN_vkBeginCommandBuffer>(c"vkBeginCommandBuffer")(commands, info);
        device.failure(Call::Commands).unwrap_or_else(next)
    }
}

unsafe extern "system" fn DestroyDevice(handle: vk::Device, host: *const vk::AllocationCallbacks<'_>) {
    // SAFETY: the last use of the handle: its entry goes first.
    unsafe {
        let device = lock(&DEVICES).remove(&key(handle.as_raw()));
        if let Some(device) = device {
            device.call::<vk::PFN_vkDestroyDevice>(c"vkDestroyDevice")(handle, host);
        }
    }
}

/// `VkLayerInstanceCreateInfo` and `VkLayerDeviceCreateInfo` (vk_layer.h) have one shape: a link to what comes next, if `function` is 0.
#[repr(C)]
struct LayerCreateInfo {
    s_type: vk::StructureType,
    next: *const c_void,
    function: i32,
    link: *mut Link,
}

#[repr(C)]
struct Link {
    next: *mut Link,
    get_instance: vk::PFN_vkGetInstanceProcAddr,
    /// Of an instance `vk_layerGetPhysicalDeviceProcAddr`.
    get_device: Option<vk::PFN_vkGetDeviceProcAddr>,
}

/// The link for this layer; moves the loader's on to the next.
unsafe fn link(mut info: *const c_void, s_type: i32) -> Option<(vk::PFN_vkGetInstanceProcAddr, Option<vk::PFN_vkGetDeviceProcAddr>)> {
    // SAFETY: a chain of structs that each begin with their type and the next one; the loader has put its own there.
    unsafe {
        while !info.is_null() {
            let this = info as *mut LayerCreateInfo;
            if (*this).s_type.as_raw() == s_type && (*this).function == 0 {
                let own = (*this).link;
                (*this).link = (*own).next;
                return Some(((*own).get_instance, (*own).get_device));
            }
            info = (*this).next;
        }
    }
    None
}

unsafe extern "system" fn CreateInstance(
    info: *const vk::InstanceCreateInfo<'_>,
    host: *const vk::AllocationCallbacks<'_>,
    out: *mut vk::Instance,
) -> vk::Result {
    // SAFETY: the protocol of LoaderLayerInterface.md; 47 is VK_STRUCTURE_TYPE_LOADER_INSTANCE_CREATE_INFO.
    unsafe {
        let Some((next, _)) = link((*info).p_next, 47) else { return vk::Result::ERROR_INITIALIZATION_FAILED };
        let Some(create) = next(vk::Instance::null(), c"vkCreateInstance".as_ptr()) else {
            return vk::Result::ERROR_INITIALIZATION_FAILED;
        };
        let create = std::mem::transmute::<unsafe extern "system" fn(), vk::PFN_vkCreateInstance>(create);
        let result = create(info, host, out);
        if result == vk::Result::SUCCESS {
            lock(&INSTANCES).insert(key((*out).as_raw()), Instance { next, handle: *out });
        }
        result
    }
}

unsafe extern "system" fn DestroyInstance(handle: vk::Instance, host: *const vk::AllocationCallbacks<'_>) {
    // SAFETY: the last use of the handle: its entry goes first.
    unsafe {
        let instance = lock(&INSTANCES).remove(&key(handle.as_raw()));
        if let Some(destroy) = instance.and_then(|instance| (instance.next)(handle, c"vkDestroyInstance".as_ptr())) {
            std::mem::transmute::<unsafe extern "system" fn(), vk::PFN_vkDestroyInstance>(destroy)(handle, host);
        }
    }
}

unsafe extern "system" fn CreateDevice(
    physical: vk::PhysicalDevice,
    info: *const vk::DeviceCreateInfo<'_>,
    host: *const vk::AllocationCallbacks<'_>,
    out: *mut vk::Device,
) -> vk::Result {
    match fault(Call::Device) {
        Some(How::Lost) => return vk::Result::ERROR_DEVICE_LOST,
        Some(How::OutOfMemory | How::Exhausted) => return vk::Result::ERROR_OUT_OF_DEVICE_MEMORY,
        _ => {}
    }
    // SAFETY: the protocol of LoaderLayerInterface.md; 48 is VK_STRUCTURE_TYPE_LOADER_DEVICE_CREATE_INFO.
    unsafe {
        let (Some(instance), Some((_, Some(next)))) = (instance_of(physical.as_raw()), link((*info).p_next, 48)) else {
            return vk::Result::ERROR_INITIALIZATION_FAILED;
        };
        let Some(create) = (instance.next)(instance.handle, c"vkCreateDevice".as_ptr()) else {
            return vk::Result::ERROR_INITIALIZATION_FAILED;
        };
        let create = std::mem::transmute::<unsafe extern "system" fn(), vk::PFN_vkCreateDevice>(create);
        let result = create(physical, info, host, out);
        if result == vk::Result::SUCCESS {
            lock(&DEVICES).insert(key((*out).as_raw()), Device { next, handle: *out, lost: false, hung: false });
        }
        result
    }
}

/// This layer's own function of a name.
fn own(name: &CStr) -> vk::PFN_vkVoidFunction {
    macro_rules! table {
        ($($symbol:literal = $function:ident as $type:ident,)*) => {
            $(if name == $symbol {
                let function: vk::$type = $function;
                // SAFETY: Vulkan has every function found in a type without arguments and cast back by its name.
                return Some(unsafe { std::mem::transmute::<vk::$type, unsafe extern "system" fn()>(function) });
            })*
        };
    }
    table! {
        c"vkGetInstanceProcAddr" = GetInstanceProcAddr as PFN_vkGetInstanceProcAddr,
        c"vkGetDeviceProcAddr" = GetDeviceProcAddr as PFN_vkGetDeviceProcAddr,
        c"vkCreateInstance" = CreateInstance as PFN_vkCreateInstance,
        c"vkDestroyInstance" = DestroyInstance as PFN_vkDestroyInstance,
        c"vkCreateDevice" = CreateDevice as PFN_vkCreateDevice,
        c"vkDestroyDevice" = DestroyDevice as PFN_vkDestroyDevice,
        c"vkQueueSubmit" = QueueSubmit as PFN_vkQueueSubmit,
        c"vkQueueWaitIdle" = QueueWaitIdle as PFN_vkQueueWaitIdle,
        c"vkDeviceWaitIdle" = DeviceWaitIdle as PFN_vkDeviceWaitIdle,
        c"vkWaitForFences" = WaitForFences as PFN_vkWaitForFences,
        c"vkWaitSemaphores" = WaitSemaphores as PFN_vkWaitSemaphores,
        c"vkWaitSemaphoresKHR" = WaitSemaphoresKHR as PFN_vkWaitSemaphores,
        c"vkGetFenceStatus" = GetFenceStatus as PFN_vkGetFenceStatus,
        c"vkGetSemaphoreCounterValue" = GetSemaphoreCounterValue as PFN_vkGetSemaphoreCounterValue,
        c"vkGetSemaphoreCounterValueKHR" = GetSemaphoreCounterValueKHR as PFN_vkGetSemaphoreCounterValue,
        c"vkAllocateMemory" = AllocateMemory as PFN_vkAllocateMemory,
        c"vkCreateComputePipelines" = CreateComputePipelines as PFN_vkCreateComputePipelines,
        c"vkCreateShaderModule" = CreateShaderModule as PFN_vkCreateShaderModule,
        c"vkCreateBuffer" = CreateBuffer as PFN_vkCreateBuffer,
        c"vkMapMemory" = MapMemory as PFN_vkMapMemory,
        c"vkAllocateDescriptorSets" = AllocateDescriptorSets as PFN_vkAllocateDescriptorSets,
        c"vkCreateDescriptorPool" = CreateDescriptorPool as PFN_vkCreateDescriptorPool,
        c"vkAllocateCommandBuffers" = AllocateCommandBuffers as PFN_vkAllocateCommandBuffers,
        c"vkBeginCommandBuffer" = BeginCommandBuffer as PFN_vkBeginCommandBuffer,
    }
    None
}

unsafe extern "system" fn GetInstanceProcAddr(handle: vk::Instance, name: *const c_char) -> vk::PFN_vkVoidFunction {
    // SAFETY: a C string, and an instance or none.
    unsafe {
        own(CStr::from_ptr(name)).or_else(|| {
            let instance = if handle.is_null() { None } else { instance_of(handle.as_raw()) };
            instance.and_then(|instance| (instance.next)(handle, name))
        })
    }
}

unsafe extern "system" fn GetDeviceProcAddr(handle: vk::Device, name: *const c_char) -> vk::PFN_vkVoidFunction {
    // SAFETY: a C string, and a device. What the device does not have stays so.
    unsafe {
        let device = device_of(handle.as_raw())?;
        let next = (device.next)(handle, name)?;
        own(CStr::from_ptr(name)).or(Some(next))
    }
}

/// `VkNegotiateLayerInterface` (vk_layer.h).
#[repr(C)]
pub struct Negotiation {
    s_type: i32,
    next: *mut c_void,
    version: u32,
    get_instance: Option<vk::PFN_vkGetInstanceProcAddr>,
    get_device: Option<vk::PFN_vkGetDeviceProcAddr>,
    get_physical: *const c_void,
}

/// What the loader calls first.
///
/// # Safety
/// `negotiation` is the loader's struct.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn vkNegotiateLoaderLayerInterfaceVersion(negotiation: *mut Negotiation) -> vk::Result {
    // SAFETY: as above.
    unsafe {
        (*negotiation).version = 2;
        (*negotiation).get_instance = Some(GetInstanceProcAddr);
        (*negotiation).get_device = Some(GetDeviceProcAddr);
        (*negotiation).get_physical = std::ptr::null();
    }
    vk::Result::SUCCESS
}

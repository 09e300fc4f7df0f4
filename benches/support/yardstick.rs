//! Plain wgpu, without the crate: for the frozen kernels of `yardstick/` and for the peaks.

use std::cell::RefCell;
use std::rc::Rc;

use wgpu::util::DeviceExt;

use super::{Place, Ready, normals};

/// An adapter opened a second time.
#[derive(Clone)]
pub struct Bare {
    device: wgpu::Device,
    queue: wgpu::Queue,
    encoder: Rc<RefCell<Option<wgpu::CommandEncoder>>>,
}

/// A compiled kernel with its buffers bound.
pub struct Program {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
}

impl Bare {
    /// The place's adapter; `None` on the CPU.
    pub fn open(place: &Place) -> Option<Self> {
        let caps = place.device.caps()?;
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.flags = wgpu::InstanceFlags::empty();
        let adapters = pollster::block_on(wgpu::Instance::new(descriptor).enumerate_adapters(wgpu::Backends::all()));
        let adapter = adapters.into_iter().find(|adapter| {
            let info = adapter.get_info();
            info.name == caps.name && info.backend.to_str() == caps.backend.name()
        })?;
        let descriptor = wgpu::DeviceDescriptor { required_limits: adapter.limits(), ..Default::default() };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).ok()?;
        Some(Bare { device, queue, encoder: Rc::default() })
    }

    /// A storage buffer of data.
    pub fn upload(&self, data: &[f32]) -> wgpu::Buffer {
        self.buffer(bytemuck::cast_slice(data), wgpu::BufferUsages::STORAGE)
    }

    /// A storage buffer of zeros, which can be read back.
    pub fn zeros(&self, len: usize) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 4 * len as u64,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        })
    }

    /// A uniform buffer.
    pub fn params(&self, words: &[u32]) -> wgpu::Buffer {
        self.buffer(bytemuck::cast_slice(words), wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST)
    }

    /// Changes a uniform buffer, for the submissions to come.
    pub fn set_params(&self, params: &wgpu::Buffer, words: &[u32]) {
        self.queue.write_buffer(params, 0, bytemuck::cast_slice(words));
    }

    fn buffer(&self, contents: &[u8], usage: wgpu::BufferUsages) -> wgpu::Buffer {
        self.device.create_buffer_init(&wgpu::util::BufferInitDescriptor { label: None, contents, usage })
    }

    /// Compiles WGSL; the buffers are its bindings, in order.
    pub fn program(&self, wgsl: &str, buffers: &[&wgpu::Buffer]) -> Program {
        let source = wgpu::ShaderSource::Wgsl(wgsl.into());
        self.link(&self.device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source }), buffers)
    }

    /// The same without naga's bounds and loop checks.
    ///
    /// # Safety
    /// The kernel indexes nothing out of bounds, and its loops end.
    pub unsafe fn program_unchecked(&self, wgsl: &str, buffers: &[&wgpu::Buffer]) -> Program {
        let descriptor = wgpu::ShaderModuleDescriptor { label: None, source: wgpu::ShaderSource::Wgsl(wgsl.into()) };
        // SAFETY: the caller promises what the checks would see to.
        let module = unsafe { self.device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) };
        self.link(&module, buffers)
    }

    fn link(&self, module: &wgpu::ShaderModule, buffers: &[&wgpu::Buffer]) -> Program {
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module,
            entry_point: Some("main"),
            compilation_options: Default::default(),
            cache: None,
        });
        let entries: Vec<_> =
            buffers.iter().zip(0..).map(|(b, binding)| wgpu::BindGroupEntry { binding, resource: b.as_entire_binding() }).collect();
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        Program { pipeline, group }
    }

    /// Records a dispatch; `sync` submits.
    pub fn record(&self, program: &Program, [x, y, z]: [u32; 3]) {
        let mut encoder = self.encoder.borrow_mut();
        let encoder = encoder.get_or_insert_with(|| self.device.create_command_encoder(&Default::default()));
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&program.pipeline);
        pass.set_bind_group(0, &program.group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }

    /// Submits what is recorded and waits for it.
    pub fn sync(&self) {
        if let Some(encoder) = self.encoder.take() {
            self.queue.submit([encoder.finish()]);
        }
        self.device.poll(wgpu::PollType::wait_indefinitely()).expect("the device is there");
    }

    /// A buffer's elements, after all that is recorded.
    pub fn download(&self, buffer: &wgpu::Buffer) -> Vec<f32> {
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: buffer.size(),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        {
            let mut encoder = self.encoder.borrow_mut();
            let encoder = encoder.get_or_insert_with(|| self.device.create_command_encoder(&Default::default()));
            encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, buffer.size());
        }
        self.sync();
        staging.map_async(wgpu::MapMode::Read, .., |mapped| mapped.expect("a buffer that was just made"));
        self.sync();
        let bytes = staging.get_mapped_range(..).expect("mapped above");
        bytemuck::pod_collect_to_vec(&bytes)
    }
}

/// The yardstick for memory-bound kernels, on `len` elements.
pub fn copy(place: &Place, len: usize) -> Option<Ready> {
    assert!(len.is_multiple_of(1024), "a workgroup copies 1024");
    let bare = Bare::open(place)?;
    let (_, host) = normals(&gristmill::Device::cpu(), &[len], 1);
    let (x, out) = (bare.upload(&host), bare.zeros(len));
    let program = bare.program(include_str!("../yardstick/copy.wgsl"), &[&x, &out]);
    let grid = [(len / 1024) as u32, 1, 1];
    let [recording, waiting] = [bare.clone(), bare.clone()];
    Some(Ready {
        call: Box::new(move || recording.record(&program, grid)),
        sync: Box::new(move || waiting.sync()),
        check: Box::new(move || assert!(bare.download(&out) == host, "yardstick.copy: wrong answer")),
    })
}

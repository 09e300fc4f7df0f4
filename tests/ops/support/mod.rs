//! What every op's tests share: devices, inputs in every memory form, the comparator, the runner that puts them together.

pub mod bounds;
pub mod compare;
pub mod devices;
pub mod input;
pub mod reference;
pub mod runner;

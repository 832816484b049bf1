//! Devices, as this machine has them.

use sightline_inference::{Device, Placed, onnx, whisper};

use crate::support::init_runtime;

#[test]
fn auto_takes_the_cpu_where_there_is_no_gpu_and_a_number_says_what_is_missing() {
    init_runtime();
    let has_gpu = std::path::Path::new("/dev/nvidia0").exists();
    let places: [fn(Device) -> _; 2] = [onnx::place, whisper::place];
    for place in places {
        let asked = place(Device::Cuda(0)).map_err(|error| error.to_string());
        match place(Device::Auto).expect("one of the two") {
            Placed::Cuda(number) => assert!(has_gpu && number == 0 && asked == Ok(Placed::Cuda(0))),
            Placed::Cpu => {
                let problem = asked.expect_err("auto would have taken it");
                assert!(
                    problem.starts_with("cannot compute on cuda:0: "),
                    "{problem}"
                );
            }
        }
    }
}

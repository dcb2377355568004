//! A model takes what was predicted from its header, of memory of its own and of mapped files, whichever kernels run it.

use std::path::Path;

use downshift_engine::Isa;
use downshift_worker::{Device, Input, KvType, Launcher, ModelSpec, Placement, Prompt, Request, RequestId, Subprocess};

use crate::support::Folder;

const MIB: u64 = 1 << 20;

/// Fills the context of a demo model in a worker process and compares what is resident then.
fn check(model: &str, kv_type: KvType, context: u32, isa: &str) {
    let launcher = Subprocess::new(env!("CARGO_BIN_EXE_downshift")).arg("worker").env("DOWNSHIFT_ISA", isa);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models").join(model);
    let spec = ModelSpec { kv_type, ..ModelSpec::from_path(file) };
    let footprint = launcher.inspect(&spec).expect("a demo model").footprint;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let worker = launcher.launch(&spec, &Placement { device: Device::Cpu, context, threads }, &|_, _| {}).expect("it loads");
    let Some(loaded) = worker.resident() else {
        eprintln!("skipped: this system does not tell what a process has resident");
        return;
    };

    let token_ids = (0..context - 8).map(|i| i * 37 % 200 + 20).collect();
    let request = Request { max_tokens: Some(6), ..Request::new(RequestId(1), Input::Completion(Prompt::Tokens(token_ids))) };
    worker.generate(&request, &mut |_| std::ops::ControlFlow::Continue(())).expect("an answer");
    let filled = worker.resident().expect("it lives");

    let cell = format!("{model} {kv_type:?} {context} {isa}: {loaded:?}, then {filled:?} of {footprint:?}");
    let hard = footprint.hard_bytes(context);
    // Each core has buffers that a model as small as these does not fill.
    let slack = 4 * MIB + threads as u64 * MIB;
    assert!(filled.anon_bytes <= hard + hard / 10, "more than predicted: {cell}");
    assert!(filled.anon_bytes + slack >= hard, "less than predicted: {cell}");
    assert!(filled.file_bytes.abs_diff(footprint.soft_bytes()) <= 2 * MIB + footprint.soft_bytes() / 20, "files: {cell}");
    // What is measured after a load is compared with this part, as KV and scratch are not touched yet.
    assert!(loaded.anon_bytes <= footprint.fixed_bytes + MIB, "a load touches what it only reserves: {cell}");
}

#[test]
fn a_worker_takes_what_was_predicted_once_its_context_is_full() {
    for isa in Isa::available().iter().map(|isa| isa.name()).filter(|name| *name != "scalar") {
        for kv_type in [KvType::F16, KvType::Q8_0] {
            for model in ["demo-large.gguf", "demo-middle.gguf", "demo-small.gguf"] {
                check(model, kv_type, 512, isa);
            }
        }
    }
    check("demo-large.gguf", KvType::F16, 4096, Isa::from_env().name());
}

#[test]
fn plan_tells_the_bytes_of_each_model_and_who_would_answer() {
    let text = "[models.gone]\npath = \"gone.gguf\"\n[models.here]\npath = \"here.gguf\"\ncontext = 512\n";
    let folder = Folder::new().with("models.toml", text).with_model("here.gguf", 1);
    let ran = folder.run(&["plan", "--json"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let plan = ran.json();
    assert_eq!(plan["answers"], "here", "{plan}");
    assert!(plan["room"].is_array() && plan["margin_bytes"].is_u64(), "{plan}");
    assert_eq!((&plan["models"][0]["name"], &plan["models"][0]["verdict"]), (&"gone".into(), &"missing".into()), "{plan}");
    let here = &plan["models"][1];
    let bytes = |name: &str| here[name].as_u64().unwrap_or_else(|| panic!("no {name} in {here}"));
    assert_eq!((&here["verdict"], &here["device"], &here["context"]), (&"fits".into(), &"cpu".into(), &512.into()), "{here}");
    // Two layers of keys and values, of two heads of 16, in half precision.
    assert_eq!(bytes("kv_bytes"), 512 * 2 * 2 * 2 * 16 * 2, "{here}");
    assert_eq!(bytes("hard_bytes"), bytes("kv_bytes") + bytes("scratch_bytes") + bytes("fixed_bytes"));
    assert_eq!(bytes("soft_bytes"), bytes("weights_bytes") + bytes("program_bytes"));
    let longer = folder.run(&["plan", "here", "--context", "1024", "--json"]).json();
    assert_eq!(longer["models"][0]["kv_bytes"].as_u64(), Some(2 * bytes("kv_bytes")), "{longer}");

    let text = folder.run(&["plan"]);
    for line in ["  weights ", "  program ", "  kv ", "  scratch ", "  fixed ", "here would answer now"] {
        assert!(text.stdout.lines().any(|found| found.starts_with(line)), "{line:?}: {text:?}");
    }
    let nobody = folder.run(&["plan", "here", "--context", "4000000000"]);
    assert_eq!(nobody.code, Some(1), "{nobody:?}");
}

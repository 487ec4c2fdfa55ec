//! Makes the messages of `proto/` at build time, without protoc, and the eBPF object; sees to it that there is a web interface.
use std::error::Error;
use std::path::Path;
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/lifeboat.proto");
    let descriptors = protox::compile(["proto/lifeboat.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".lifeboat.v1.FrameMessage.frame")
        .bytes(".lifeboat.v1.ReadPart.frame")
        .compile_fds(descriptors)?;
    web_interface()?;
    ebpf_object()
}

/// Where the web interface is not built, a page that says how. `LIFEBOAT_REQUIRE_UI=1` (releases): that is an error.
fn web_interface() -> Result<(), Box<dyn Error>> {
    let (dist, placeholder) = (Path::new("web/dist"), Path::new("web/placeholder.html"));
    let page = dist.join("index.html");
    println!("cargo:rerun-if-env-changed=LIFEBOAT_REQUIRE_UI");
    println!("cargo:rerun-if-changed={}", placeholder.display());
    let wanted = std::fs::read(placeholder)?;
    // Files besides the page: a built interface.
    if !dist.join("assets").is_dir() {
        if std::env::var("LIFEBOAT_REQUIRE_UI").is_ok_and(|value| value == "1") {
            return Err("the web interface is not built: cd web && npm ci && npm run build".into());
        }
        if std::fs::read(&page).ok() != Some(wanted.clone()) {
            std::fs::create_dir_all(dist)?;
            std::fs::write(&page, wanted)?;
        }
    }
    println!("cargo:rerun-if-changed={}", dist.display());
    Ok(())
}

/// From the C source where there is clang, else the committed object, if it was built from this source.
fn ebpf_object() -> Result<(), Box<dyn Error>> {
    let folder = Path::new("src/agent/capture/bpf");
    println!("cargo:rerun-if-changed={}", folder.display());
    let target = Path::new(&std::env::var("OUT_DIR")?).join("changed_blocks.bpf.o");
    let built = Command::new("bash")
        .arg(folder.join("compile.sh"))
        .arg(&target)
        .output();
    match built {
        Ok(output) if output.status.success() => return Ok(()),
        // No clang: exit code 3.
        Ok(output) if output.status.code() != Some(3) => {
            let text = String::from_utf8_lossy(&output.stderr);
            for line in text.lines() {
                println!("cargo:warning=eBPF object not built: {line}");
            }
        }
        _ => {}
    }
    let source = blake3::hash(&std::fs::read(folder.join("changed_blocks.bpf.c"))?);
    let recorded = std::fs::read_to_string(folder.join("changed_blocks.bpf.blake3"))?;
    if recorded.split_whitespace().next() != Some(source.to_hex().as_str()) {
        return Err(
            "the committed eBPF object is not of this source; install clang, llvm and libbpf-dev".into(),
        );
    }
    std::fs::copy(folder.join("changed_blocks.bpf.o"), target)?;
    Ok(())
}

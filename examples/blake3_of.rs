//! Prints the BLAKE3 of a file: names the source that the committed eBPF object was built from.
fn main() -> std::io::Result<()> {
    let path = std::env::args().nth(1).ok_or(std::io::ErrorKind::InvalidInput)?;
    println!("{}", blake3::hash(&std::fs::read(path)?).to_hex());
    Ok(())
}

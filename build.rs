//! Lets the binary be built without the page of the dashboard, and again when that was built.

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    // Vite names files by their content, so the folder changes with them. One that is not there would have Cargo run this at every build.
    std::fs::create_dir_all("ui/dist")?;
    println!("cargo:rerun-if-changed=ui/dist");
    Ok(())
}

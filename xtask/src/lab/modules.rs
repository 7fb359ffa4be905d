//! Builds the scenarios' C modules for a kernel in that kernel's tree.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    host::{paths, process},
    lab::kernels::{self, Kernel},
};

/// The modules built for `kernel`, from the cache if nothing has changed.
pub(crate) fn build(kernel: &Kernel) -> Result<Vec<PathBuf>> {
    let sources = sources(&paths::root()?.join("tests/modules"))?;
    let key = key(kernel, &sources);
    let cached = kernel.folder.join("modules").join(&key);
    let _lock = kernels::lock(&kernel.folder)?;
    if !cached.is_dir() {
        process::step(
            &format!("kernel {}: build the scenarios' modules", kernel.name),
            || make(kernel, &sources, &key, &cached),
        )?;
    }
    list(&cached)
}

/// A source file's name and content.
type Source = (String, Vec<u8>);

fn sources(folder: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry
            .with_context(|| format!("cannot read {}", folder.display()))?
            .path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let is_source = ["Makefile", "Kbuild"].contains(&name)
            || path
                .extension()
                .is_some_and(|extension| extension == "c" || extension == "h");
        if is_source {
            let content =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            sources.push((name.to_owned(), content));
        }
    }
    sources.sort();
    Ok(sources)
}

fn key(kernel: &Kernel, sources: &[Source]) -> String {
    let mut hasher = DefaultHasher::new();
    kernel.release.hash(&mut hasher);
    sources.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn make(kernel: &Kernel, sources: &[Source], key: &str, cached: &Path) -> Result<()> {
    let build = kernel.tree.join(format!("build-{key}"));
    if build.exists() {
        fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))?;
    }
    fs::create_dir(&build).with_context(|| format!("cannot make {}", build.display()))?;
    for (name, content) in sources {
        let path = build.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    // The kernel's objtool reads /proc; the mount ends with the namespace.
    let script = "mount -t proc proc \"$1/proc\" && exec chroot \"$1\" \
                  make -C \"/usr/src/linux-headers-$2\" M=\"/build-$3\" modules";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(&kernel.tree)
        .args([&kernel.release, key])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    process::run_logged(&mut command, &kernel.folder.join("make-modules.log"))?;

    // Under another name until it is complete: the folder's presence is the stamp.
    let partial = cached.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)
            .with_context(|| format!("cannot remove {}", partial.display()))?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    let modules = list(&build)?;
    if modules.is_empty() {
        bail!("tests/modules/Makefile built no module");
    }
    for module in modules {
        let name = module.file_name().context("a module without a name")?;
        fs::copy(&module, partial.join(name))
            .with_context(|| format!("cannot copy {}", module.display()))?;
    }
    fs::rename(&partial, cached).with_context(|| format!("cannot make {}", cached.display()))?;
    fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut modules = Vec::new();
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry
            .with_context(|| format!("cannot read {}", folder.display()))?
            .path();
        if path.extension().is_some_and(|extension| extension == "ko") {
            modules.push(path);
        }
    }
    modules.sort();
    Ok(modules)
}

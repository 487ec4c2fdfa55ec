//! The little of an ELF file (64-bit, little-endian) that building a machine needs: its sections.

fn number(bytes: &[u8], at: usize, len: usize) -> Option<usize> {
    let field = bytes.get(at..at.checked_add(len)?)?;
    let value = field
        .iter()
        .rev()
        .fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    usize::try_from(value).ok()
}

/// Content of a section; None when there is none, or the file is no such ELF.
pub fn section<'a>(file: &'a [u8], name: &str) -> Option<&'a [u8]> {
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (table, entry_len, count, names) = (
        number(file, 40, 8)?,
        number(file, 58, 2)?,
        number(file, 60, 2)?,
        number(file, 62, 2)?,
    );
    let header = |index: usize| table.checked_add(index.checked_mul(entry_len)?);
    let content = |at: usize| {
        let (offset, len) = (number(file, at + 24, 8)?, number(file, at + 32, 8)?);
        file.get(offset..offset.checked_add(len)?)
    };
    let names = content(header(names)?)?;
    (0..count).find_map(|index| {
        let at = header(index)?;
        let found = names.get(number(file, at, 4)?..)?;
        let found = found.split(|byte| *byte == 0).next()?;
        (found == name.as_bytes()).then(|| content(at))?
    })
}

/// The program loader that a dynamically linked program asks for.
pub fn interpreter(file: &[u8]) -> Option<&str> {
    std::str::from_utf8(section(file, ".interp")?.split(|byte| *byte == 0).next()?).ok()
}

/// Values of a key in a kernel module's `.modinfo`.
pub fn module_info<'a>(file: &'a [u8], key: &'a str) -> impl Iterator<Item = &'a str> {
    section(file, ".modinfo")
        .unwrap_or_default()
        .split(|byte| *byte == 0)
        .filter_map(move |entry| {
            std::str::from_utf8(entry)
                .ok()?
                .strip_prefix(key)?
                .strip_prefix('=')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_test_program() {
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(section(&file, ".text").unwrap().len() > 1000);
        assert_eq!(section(&file, ".no-such"), None);
        if let Some(path) = interpreter(&file) {
            assert!(std::path::Path::new(path).exists(), "{path}");
        }
        assert_eq!(module_info(&file, "depends").count(), 0);
    }

    #[test]
    fn a_cut_or_garbled_file_is_no_reason_to_panic() {
        let file = std::fs::read("/proc/self/exe").unwrap();
        for len in (0..4096).chain([file.len() - 1, file.len() / 2]) {
            let _ = section(&file[..len], ".text");
        }
        let mut garbled = file;
        for at in 40..64 {
            garbled[at] = 0xff;
            let _ = section(&garbled, ".text");
        }
    }
}

//! An EFI system partition: a FAT16 file system with one file, made without a formatting program.
//!
//! FAT specification 1.03. Clusters of one sector, so that 4 MiB hold the more than 4084 clusters that make a FAT of 16 bits.

pub const SECTORS: u32 = 8192;
const SECTOR: usize = 512;
const RESERVED: usize = 1;
const FAT_SECTORS: usize = 32;
const ROOT_ENTRIES: u16 = 512;
const ROOT_SECTORS: usize = ROOT_ENTRIES as usize * 32 / SECTOR;
const FIRST_DATA: usize = RESERVED + 2 * FAT_SECTORS + ROOT_SECTORS;
/// Some day that is not zero: the time of a file means nothing here, and the same machine gives the same bytes.
const DATE: [u8; 2] = [0x21, 0x50];
const DIRECTORY: u8 = 0x10;
const ARCHIVE: u8 = 0x20;
const LABEL: &[u8; 11] = b"ESP        ";
const VOLUME_LABEL: u8 = 0x08;

/// The partition with `/EFI/BOOT/BOOTX64.EFI`; None when the file does not fit.
pub fn efi_system_partition(boot_program: &[u8], serial: u32) -> Option<Vec<u8>> {
    let clusters = boot_program.len().div_ceil(SECTOR).max(1);
    if FIRST_DATA + 2 + clusters > SECTORS as usize {
        return None;
    }
    let mut bytes = vec![0; SECTORS as usize * SECTOR];
    bytes[..SECTOR].copy_from_slice(&boot_sector(serial));
    // Cluster 2: /EFI, 3: /EFI/BOOT, from 4: the file.
    let mut table = vec![0xfff8_u16, 0xffff, 0xffff, 0xffff];
    let first = u16::try_from(table.len()).ok()?;
    for next in 1..clusters {
        table.push(first + u16::try_from(next).ok()?);
    }
    table.push(0xffff);
    for copy in 0..2 {
        let begin = (RESERVED + copy * FAT_SECTORS) * SECTOR;
        for (place, value) in table.iter().enumerate() {
            bytes[begin + place * 2..begin + place * 2 + 2].copy_from_slice(&value.to_le_bytes());
        }
    }
    let cluster = |number: u16| (FIRST_DATA + usize::from(number) - 2) * SECTOR;
    let root = (RESERVED + 2 * FAT_SECTORS) * SECTOR;
    let len = u32::try_from(boot_program.len()).ok()?;
    let mut enter = |at: usize, name: &[u8; 11], kind: u8, first: u16, len: u32| {
        bytes[at..at + 32].copy_from_slice(&directory_entry(name, kind, first, len));
    };
    enter(root, LABEL, VOLUME_LABEL, 0, 0);
    enter(root + 32, b"EFI        ", DIRECTORY, 2, 0);
    enter(cluster(2), b".          ", DIRECTORY, 2, 0);
    enter(cluster(2) + 32, b"..         ", DIRECTORY, 0, 0);
    enter(cluster(2) + 64, b"BOOT       ", DIRECTORY, 3, 0);
    enter(cluster(3), b".          ", DIRECTORY, 3, 0);
    enter(cluster(3) + 32, b"..         ", DIRECTORY, 2, 0);
    enter(cluster(3) + 64, b"BOOTX64 EFI", ARCHIVE, first, len);
    bytes[cluster(first)..cluster(first) + boot_program.len()].copy_from_slice(boot_program);
    Some(bytes)
}

fn directory_entry(name: &[u8; 11], kind: u8, first: u16, len: u32) -> [u8; 32] {
    let mut entry = [0; 32];
    entry[..11].copy_from_slice(name);
    entry[11] = kind;
    for at in [16, 18, 24] {
        entry[at..at + 2].copy_from_slice(&DATE);
    }
    entry[26..28].copy_from_slice(&first.to_le_bytes());
    entry[28..32].copy_from_slice(&len.to_le_bytes());
    entry
}

fn boot_sector(serial: u32) -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    sector[..3].copy_from_slice(&[0xeb, 0x3c, 0x90]);
    sector[3..11].copy_from_slice(b"LIFEBOAT");
    sector[11..13].copy_from_slice(&512_u16.to_le_bytes());
    sector[13] = 1;
    sector[14..16].copy_from_slice(&1_u16.to_le_bytes());
    sector[16] = 2;
    sector[17..19].copy_from_slice(&ROOT_ENTRIES.to_le_bytes());
    sector[19..21].copy_from_slice(&8192_u16.to_le_bytes());
    sector[21] = 0xf8;
    sector[22..24].copy_from_slice(&32_u16.to_le_bytes());
    sector[24..26].copy_from_slice(&32_u16.to_le_bytes());
    sector[26..28].copy_from_slice(&64_u16.to_le_bytes());
    sector[36] = 0x80;
    sector[38] = 0x29;
    sector[39..43].copy_from_slice(&serial.to_le_bytes());
    sector[43..54].copy_from_slice(LABEL);
    sector[54..62].copy_from_slice(b"FAT16   ");
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_does_not_fit_is_refused() {
        let room = (SECTORS as usize - FIRST_DATA - 2) * SECTOR;
        assert!(efi_system_partition(&vec![1; room], 1).is_some());
        assert!(efi_system_partition(&vec![1; room + 1], 1).is_none());
    }

    #[test]
    fn the_file_stands_where_the_chain_says() {
        let program: Vec<u8> = (0..5000_u32).map(|byte| (byte % 251) as u8).collect();
        let image = efi_system_partition(&program, 7).unwrap();
        let fat = |cluster: usize| {
            let at = SECTOR + cluster * 2;
            u16::from_le_bytes([image[at], image[at + 1]])
        };
        let (mut cluster, mut read) = (4_usize, Vec::<u8>::new());
        while cluster < 0xfff8 {
            let at = (FIRST_DATA + cluster - 2) * SECTOR;
            read.extend(&image[at..at + SECTOR]);
            cluster = usize::from(fat(cluster));
        }
        assert_eq!(&read[..5000], program);
        assert_eq!(read.len(), 10 * SECTOR);
    }
}

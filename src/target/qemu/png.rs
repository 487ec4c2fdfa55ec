//! A screenshot of a QEMU that only knows PPM, as PNG. Stored, not compressed: rare, and no decoder minds.

/// Longest picture taken for one: 16 megapixels.
const BYTES_MAX: usize = 64 << 20;

/// Binary PPM (`P6`, 8 bits per colour) to PNG; None: it is not that.
pub(super) fn from_ppm(ppm: &[u8]) -> Option<Vec<u8>> {
    let mut rest = ppm.strip_prefix(b"P6")?;
    let mut numbers = [0u32; 3];
    for number in &mut numbers {
        rest = rest.trim_ascii_start();
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        *number = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
        rest = &rest[digits..];
    }
    let [width, height, 255] = numbers else {
        return None;
    };
    // One white space, then the pixels.
    let pixels = rest.get(1..)?;
    let row = (width as usize).checked_mul(3)?;
    let bytes = row.checked_mul(height as usize)?;
    if bytes == 0 || bytes > BYTES_MAX || pixels.len() < bytes {
        return None;
    }
    let mut raw = Vec::with_capacity(bytes + height as usize);
    for line in pixels[..bytes].chunks(row) {
        raw.push(0); // no filter
        raw.extend_from_slice(line);
    }
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend_from_slice(&[8, 2, 0, 0, 0]); // 8 bits, RGB
    chunk(&mut png, b"IHDR", &header);
    chunk(&mut png, b"IDAT", &stored(&raw));
    chunk(&mut png, b"IEND", &[]);
    Some(png)
}

fn chunk(png: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    png.extend_from_slice(&(data.len() as u32).to_be_bytes());
    let from = png.len();
    png.extend_from_slice(kind);
    png.extend_from_slice(data);
    png.extend_from_slice(&crc32fast::hash(&png[from..]).to_be_bytes());
}

/// A zlib stream (RFC 1950) of stored blocks (RFC 1951).
fn stored(raw: &[u8]) -> Vec<u8> {
    let mut stream = vec![0x78, 0x01];
    let blocks = raw.chunks(0xffff);
    let count = blocks.len();
    for (index, block) in blocks.enumerate() {
        stream.push(u8::from(index + 1 == count));
        stream.extend_from_slice(&(block.len() as u16).to_le_bytes());
        stream.extend_from_slice(&(!(block.len() as u16)).to_le_bytes());
        stream.extend_from_slice(block);
    }
    let (mut low, mut high) = (1u32, 0u32);
    for byte in raw {
        low = (low + u32::from(*byte)) % 65521;
        high = (high + low) % 65521;
    }
    stream.extend_from_slice(&(high << 16 | low).to_be_bytes());
    stream
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_picture() {
        let png = from_ppm(b"P6\n2 1\n255\n\x01\x02\x03\x04\x05\x06").unwrap();
        // The same picture as another encoder stored it.
        assert_eq!(
            hex::encode(&png),
            concat!(
                "89504e470d0a1a0a0000000d49484452000000020000000108020000007b40e8dd00000012",
                "494441547801010700f8ff00010203040506003f001668415f8d0000000049454e44ae426082"
            )
        );
        for wrong in [
            b"P5\n2 1\n255\n\x01\x02".as_slice(),
            b"P6\n2 1\n255\n\x01\x02\x03\x04\x05",
            b"P6\n2 1\n65535\n\x01\x02\x03\x04\x05\x06",
            b"P6\n99999999999 1\n255\n",
            b"P6\n0 0\n255\n\n",
            b"P6",
        ] {
            assert!(from_ppm(wrong).is_none());
        }
    }
}

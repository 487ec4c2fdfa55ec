//! The parts that every block passes: sets of blocks, frames, finding the layer that answers, reading an image.
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use lifeboat::agent::capture::{ChangeSource, EbpfSource};
use lifeboat::agent::import::register;
use lifeboat::block::{BLOCK_BYTES, BlockRange, Consistency, DiskId, ExtentSet, Frame, FrameBuilder};
use lifeboat::replica::{At, PointSpec, Store, VaultKey};
use std::hint::black_box;
use std::path::Path;
use std::process::Command;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit
    }
}

/// Half text, half noise: compresses to about half, as file systems do.
fn blocks(count: usize, random: &mut Random) -> Vec<u8> {
    let mut data = vec![0; count * BLOCK_BYTES];
    for (index, word) in data.chunks_exact_mut(8).enumerate() {
        let value = if index % 2 == 0 {
            0x2064_726f_7720_6120
        } else {
            random.below(u64::MAX)
        };
        word.copy_from_slice(&value.to_le_bytes());
    }
    data
}

fn frame(first: u64, data: &[u8]) -> Bytes {
    let mut builder = FrameBuilder::new();
    builder.push(first, data);
    builder.finish(1).unwrap()
}

fn extent_set(c: &mut Criterion) {
    let mut random = Random(1);
    let places: Vec<u64> = (0..10_000).map(|_| random.below(1 << 24)).collect();
    let set: ExtentSet = places.iter().map(|&block| BlockRange::new(block, 1)).collect();
    c.bench_function("extent set: 10 000 random blocks inserted", |b| {
        b.iter(|| {
            places
                .iter()
                .map(|&block| BlockRange::new(block, 1))
                .collect::<ExtentSet>()
        })
    });
    c.bench_function("extent set: one block asked of 10 000", |b| {
        b.iter(|| set.contains(black_box(random.below(1 << 24))))
    });
}

fn frames(c: &mut Criterion) {
    let mut random = Random(2);
    let data = blocks(64, &mut random);
    let zeros = vec![0; data.len()];
    let stored = frame(0, &data);
    let mut group = c.benchmark_group("frame of 256 KiB");
    group.throughput(Throughput::Bytes(data.len() as u64));
    let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
    group.bench_function("made", |b| {
        b.iter(|| {
            let mut builder = FrameBuilder::new();
            builder.push(0, &data);
            builder.finish_with(&mut compressor).unwrap()
        })
    });
    group.bench_function("made of zeros", |b| b.iter(|| frame(0, &zeros)));
    group.bench_function("checked", |b| b.iter(|| Frame::parse(stored.clone()).unwrap()));
    group.bench_function("checked and unpacked", |b| {
        b.iter(|| Frame::parse(stored.clone()).unwrap().decompress().unwrap())
    });
    group.finish();
}

/// A disk of 256 MiB with points of 64 random blocks each.
fn images(c: &mut Criterion) {
    let blocks_in_all = 65536u64;
    for points in [1, 100] {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path(), &VaultKey::generate()).unwrap();
        let (machine, disks) = register(&store, "m", &[blocks_in_all * BLOCK_BYTES as u64]).unwrap();
        let mut writer = store.begin(machine, 1).unwrap();
        let mut random = Random(3);
        for point in 0..points {
            if point == 0 {
                for first in (0..blocks_in_all).step_by(64) {
                    writer
                        .append(disks[0], frame(first, &blocks(64, &mut random)))
                        .unwrap();
                }
            } else {
                for _ in 0..64 {
                    let first = random.below(blocks_in_all);
                    writer
                        .append(disks[0], frame(first, &blocks(1, &mut random)))
                        .unwrap();
                }
            }
            let spec = PointSpec {
                instant_unix_nanos: point,
                consistency: Consistency::CrashConsistent,
                note: String::new(),
                freeze_micros: 0,
            };
            writer.seal(spec).unwrap();
        }
        let mut group = c.benchmark_group(format!("image after {points} points"));
        group.bench_function("opened", |b| {
            b.iter(|| store.image(machine, disks[0], At::Latest).unwrap())
        });
        let image = store.image(machine, disks[0], At::Latest).unwrap();
        group.bench_function("layers asked for 64 KiB", |b| {
            b.iter(|| image.status(random.below(4000) * 65536, 65536).unwrap())
        });
        group.throughput(Throughput::Bytes(4096));
        group.bench_function("4 KiB read, random", |b| {
            let mut buffer = [0; 4096];
            b.iter(|| {
                image
                    .read_at(random.below(blocks_in_all) * 4096, &mut buffer)
                    .unwrap()
            })
        });
        group.throughput(Throughput::Bytes(16 << 20));
        group.sample_size(10);
        group.bench_function("16 MiB read in a row, cold", |b| {
            b.iter_batched(
                || {
                    (
                        store.image(machine, disks[0], At::Latest).unwrap(),
                        vec![0; 1 << 20],
                    )
                },
                |(image, mut buffer)| {
                    for at in 0..16 {
                        image.read_at(at << 20, &mut buffer).unwrap();
                    }
                },
                BatchSize::PerIteration,
            )
        });
        group.finish();
    }
}

/// What the freeze costs on a disk of 1 TiB besides reading: the bits are looked through. Needs root.
fn bits(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("disk");
    std::fs::File::create(&file).unwrap().set_len(1 << 40).unwrap();
    let attached = Command::new("losetup")
        .args(["--find", "--show"])
        .arg(&file)
        .output();
    let Some(device) = attached.ok().filter(|output| output.status.success()) else {
        eprintln!("bits of 1 TiB: not measured, no loop device");
        return;
    };
    let device = String::from_utf8_lossy(&device.stdout).trim().to_owned();
    let source = EbpfSource::open(Path::new(&device), DiskId::new());
    if let Ok(mut source) = source {
        for place in 0..1000u64 {
            source.mark(BlockRange::new(place * 200_000, 1));
        }
        c.bench_function("bits of 1 TiB: taken", |b| b.iter(|| source.take()));
        c.bench_function("bits of 1 TiB: 1000 pending ranges found", |b| {
            b.iter(|| {
                let mut from = 0;
                while let Some(range) = source.next_pending(from, u64::MAX) {
                    from = range.end();
                }
            })
        });
        c.bench_function("bits of 1 TiB: asked whether quiet", |b| {
            b.iter(|| source.is_quiet(&[]))
        });
        Box::new(source).forget();
    }
    let _ = Command::new("losetup").args(["--detach", &device]).status();
}

criterion_group!(benches, extent_set, frames, images, bits);
criterion_main!(benches);

//! Speed of what every write and lookup pays for once: digests and checksums, packing, a place in an open frame, the search of one index
//! page. All of it in memory that the core has at hand.

#![allow(missing_docs, clippy::unwrap_used)]

use cdp_core::{
    format::{
        digest::{DigestKey, crc},
        leaf::LeafBuilder,
        packed::{PackedContent, PackedEntry, PackedKey},
        page::{Page, PageIdentity},
    },
    io::AlignedBuf,
    journal::{FrameContext, OpenFrame, PreparedWrite},
    limits::FRAME_BYTES_MAX,
    units::{ExtentId, FrameNo, Lineage, OwnerEpoch, Sector, SectorRange, Seq, TimeNs, VolumeId},
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const BLOCK_LEN: usize = 4096;
const KEY: DigestKey = DigestKey(7);

/// Xorshift: places that no predictor learns.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Noise, with `repeated` of every 64 bytes the same: what packs to about the rest.
    fn bytes(&mut self, length: usize, repeated: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let at = bytes.len() % 64;
            bytes.push(if at < repeated { 0x5A } else { self.next().to_le_bytes()[3] });
        }
        bytes
    }
}

fn codecs(criterion: &mut Criterion) {
    let mut random = Random(88_172_645_463_325_252);
    let block = random.bytes(BLOCK_LEN, 0);
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Bytes(BLOCK_LEN as u64));
    group.bench_function("digest_4k", |bencher| bencher.iter(|| black_box(KEY.digest(black_box(&block)))));
    group.bench_function("crc_4k", |bencher| bencher.iter(|| black_box(crc(black_box(&block)))));
    // Seed sets pack runs of up to 1 MiB.
    for (name, repeated) in [("noise", 0), ("half", 32)] {
        let data = random.bytes(1 << 20, repeated);
        let packed = lz4_flex::block::compress(&data);
        group.throughput(Throughput::Bytes(1 << 20));
        group.bench_function(format!("lz4_pack_1m_{name}"), |bencher| {
            bencher.iter(|| black_box(lz4_flex::block::compress(black_box(&data))));
        });
        group.bench_function(format!("lz4_unpack_1m_{name}"), |bencher| {
            bencher.iter(|| black_box(lz4_flex::block::decompress(black_box(&packed), data.len()).unwrap()));
        });
    }
    group.finish();
}

/// A block is prepared and gets its place in an open frame, with the copy of its payload; a full frame is sealed.
fn frames(criterion: &mut Criterion) {
    let mut random = Random(2_685_821_657_736_338_717);
    let block = random.bytes(BLOCK_LEN, 0);
    let context = FrameContext {
        store: 1,
        segment: ExtentId::new(1),
        segment_uuid: 2,
        offset: 4096,
        frame: FrameNo::new(1),
        lineage: Lineage::ZERO,
        owner_epoch: OwnerEpoch::ZERO,
        previous_crc: 0,
    };
    let empty = || OpenFrame::new(context, Seq::ZERO, AlignedBuf::new(FRAME_BYTES_MAX).unwrap());
    // Fills a frame, and says how many blocks that were.
    let fill = |open: &mut OpenFrame| {
        let mut count = 0u64;
        loop {
            let range = SectorRange { start: Sector::new(count * 8), sectors: 8 };
            let write = PreparedWrite::data(VolumeId::new(1), range, black_box(&block), KEY);
            for part in write.parts() {
                if !open.fits(&part) {
                    return count;
                }
                black_box(open.push(part, Seq::new(count + 1), TimeNs::new(count)));
            }
            count += 1;
        }
    };
    let blocks = fill(&mut empty());
    let mut group = criterion.benchmark_group("frame");
    group.throughput(Throughput::Elements(blocks));
    group.bench_function("reserve_4k_until_full", |bencher| {
        bencher.iter_batched_ref(empty, |open| black_box(fill(open)), BatchSize::PerIteration);
    });
    let full = || {
        let mut open = empty();
        fill(&mut open);
        open
    };
    group.bench_function("seal", |bencher| {
        bencher.iter_batched(
            full,
            |open| black_box(open.seal(TimeNs::ZERO, FrameNo::ZERO, 0)),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn pages(criterion: &mut Criterion) {
    let mut random = Random(1_181_783_497_276_652_981);
    let identity = PageIdentity { store: 1, extent: ExtentId::new(1), page: 0 };
    let mut builder = LeafBuilder::default();
    let mut block = 0;
    loop {
        block += 1 + random.next() % 64;
        let content = PackedContent::data(block % 1000, 8, 0xFF, random.next() | 1);
        if !builder
            .push(&PackedEntry { key: PackedKey::new(1, block, 0, 1 + random.next() % 1_000_000), content })
        {
            break;
        }
    }
    let (_, bytes) = builder.finish(&identity);
    let page = Page(&bytes);
    let leaf = page.leaf().unwrap();
    let mut group = criterion.benchmark_group("page");
    group.bench_function("search", |bencher| {
        bencher.iter(|| {
            let key = PackedKey::new(1, random.next() % block, 0, u64::from(u32::MAX));
            black_box(leaf.lower_bound(key))
        });
    });
    group.throughput(Throughput::Elements(leaf.len() as u64));
    group.bench_function("verify", |bencher| bencher.iter(|| black_box(page.verify(&identity).unwrap())));
    let mut out = Vec::new();
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            out.clear();
            leaf.decode_into(&mut out);
            black_box(out.len())
        });
    });
    group.finish();
}

criterion_group!(benches, codecs, frames, pages);
criterion_main!(benches);

//! Fuzz targets as plain functions, and seeds for them.
//!
//! `c_interface` calls the C interface in any order with anything.
//!
//! A target takes any bytes. It panics when the library does, when a decoder accepts what is not the one canonical form of a value,
//! or when a store answers with wrong bytes. Most inputs are given a right checksum and identity before they are decoded, so that the
//! checks behind the checksum are reached.
//!
//! `fuzz/run SECONDS` runs them all.

mod c_interface;
mod decoders;
mod dirty_map;
mod mirror;
mod mutate;
mod pages;
mod seed;
mod store;
mod text;

/// A target.
pub struct Target {
    /// Its name, which is that of its binary.
    pub name: &'static str,
    /// What is run.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: [Target; 24] = [
    Target { name: "c_interface", run: c_interface::calls, seeds: c_interface::seeds },
    Target { name: "superblock", run: pages::superblock, seeds: pages::superblock_seeds },
    Target { name: "segment_header", run: pages::segment_header, seeds: pages::segment_header_seeds },
    Target { name: "compacted", run: pages::compacted, seeds: pages::compacted_seeds },
    Target { name: "frame", run: decoders::frame, seeds: decoders::frame_seeds },
    Target { name: "frame_table", run: pages::frame_table, seeds: pages::frame_table_seeds },
    Target { name: "manifest", run: decoders::manifest, seeds: decoders::manifest_seeds },
    Target { name: "metadata", run: decoders::metadata, seeds: decoders::metadata_seeds },
    Target { name: "index_page", run: pages::index_page, seeds: pages::index_page_seeds },
    Target { name: "trailer", run: pages::trailer, seeds: pages::trailer_seeds },
    Target { name: "run_meta", run: decoders::run_meta, seeds: decoders::run_meta_seeds },
    Target { name: "store", run: store::store, seeds: store::seeds },
    Target { name: "trace_csv", run: text::trace_csv, seeds: text::trace_csv_seeds },
    Target { name: "trace_msr", run: text::trace_msr, seeds: text::trace_msr_seeds },
    Target { name: "policy_toml", run: text::policy_toml, seeds: text::policy_toml_seeds },
    Target { name: "policy_json", run: text::policy_json, seeds: text::policy_json_seeds },
    Target { name: "dirty_map_wire", run: dirty_map::wire, seeds: dirty_map::wire_seeds },
    Target { name: "dirty_map_file", run: dirty_map::file, seeds: dirty_map::file_seeds },
    Target { name: "mirror_state", run: mirror::state, seeds: mirror::state_seeds },
    Target { name: "mirror_set", run: mirror::set, seeds: mirror::state_seeds },
    Target { name: "seed_manifest", run: seed::manifest, seeds: seed::manifest_seeds },
    Target { name: "seed_file", run: seed::file_head, seeds: seed::file_head_seeds },
    Target { name: "seed_batch", run: seed::batch, seeds: seed::batch_seeds },
    Target { name: "text", run: text::text, seeds: text::text_seeds },
];

/// Runs a target.
///
/// # Panics
/// When it finds a defect, or there is no such target.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of this name");
    (target.run)(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every target accepts its own seeds and near misses of them. Method: each seed, each of its first 64 bytes changed, and
    /// a few cuts.
    #[test]
    fn targets_survive_their_seeds() {
        for target in &TARGETS {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty(), "{}", target.name);
            for seed in seeds {
                (target.run)(&seed);
                for at in 0..seed.len().min(64) {
                    let mut changed = seed.clone();
                    changed[at] ^= 0x41;
                    (target.run)(&changed);
                }
                for cut in [0, 1, seed.len() / 2, seed.len().saturating_sub(1)] {
                    (target.run)(&seed[..cut]);
                }
            }
        }
    }
}

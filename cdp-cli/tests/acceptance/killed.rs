//! kill -9 of a writing process, without any mount: what is found afterwards is an exact prefix of the trace.

use std::thread;
use std::time::Duration;

use crate::support::command::cdp_command;
use crate::support::{Random, Scene, Shape, scaled};

/// Goal: after kill -9 at any moment the store opens, its state is an exact prefix, and it goes on from there.
/// Method: replay one long trace; kill it at random; compare the newest and random older points; replay the rest;
/// again, until the trace is done. Bookmarks inside the prefix must be there with their seq.
#[test]
fn a_killed_replay_leaves_an_exact_prefix() {
    let mut random = Random::for_test("a_killed_replay_leaves_an_exact_prefix");
    let mut scene = Scene::new(&[("disk", 8 << 20)]);
    let mut shape = Shape::mixed(8 << 20, 30_000);
    shape.bookmark_percent = 0;
    let mut rest = shape.generate(&mut random);
    let mut kills = 0;
    for _ in 0..scaled(12, 150) {
        let file = scene.path("rest.csv");
        rest.save(&file);
        let mut command = cdp_command();
        let mut child = command
            .arg("replay")
            .arg(&scene.store)
            .arg(&file)
            .args(["--fill", "stamp"])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_millis(random.between(1, 120)));
        child.kill().unwrap();
        let finished = child.wait().unwrap().success();
        kills += usize::from(!finished);
        let before = scene.oracle.newest();
        let newest = scene.newest();
        assert!(newest >= before, "what was durable before is lost: {before} became {newest}");
        let (done, left) = rest.split_after_counted(newest - before);
        scene.oracle.replay(&done, None);
        scene.assert_restores("latest", "disk", newest);
        for _ in 0..3 {
            let seq = random.between(0, newest);
            scene.assert_restores(&format!("seq:{seq}"), "disk", seq);
        }
        scene.assert_sound();
        rest = left;
        if finished {
            break;
        }
    }
    println!("{kills} kills");
    assert!(kills > 0, "the replay was never killed in its middle");
    scene.replay(&rest);
    scene.assert_restores("latest", "disk", scene.oracle.newest());
    scene.assert_sound();
}

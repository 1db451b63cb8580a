//! `cdp volume add`, `list` and `resize`.

use super::absolute;
use crate::{
    args::{StoreArguments, VolumeAddArguments, VolumeCommand, VolumeResizeArguments},
    exit::{Failure, Outcome},
    image::ImageSource,
    interrupt::Interrupt,
    output::{self, Table, VolumeDocument, VolumesDocument},
    owner::{self, Reply, Request},
};
use cdp_core::text::format_size;

/// Runs the command.
pub fn run(command: &VolumeCommand) -> Outcome {
    match command {
        VolumeCommand::Add(arguments) => add(arguments),
        VolumeCommand::List(arguments) => list(arguments),
        VolumeCommand::Resize(arguments) => resize(arguments),
    }
}

fn add(arguments: &VolumeAddArguments) -> Outcome {
    let interrupt = Interrupt::register()?;
    let import = arguments.import.as_deref().map(absolute).transpose()?;
    let bytes = match (arguments.size, &import) {
        (Some(bytes), _) => bytes,
        (None, Some(path)) => ImageSource::open(path, interrupt.clone())?.sector_bytes(),
        (None, None) => 0,
    };
    if bytes == 0 {
        return Err(Failure::new("the image is empty; give the size of the volume with --size"));
    }
    let request = Request::AddVolume {
        name: arguments.name.clone(),
        bytes,
        import,
        time_ns: arguments.time.map(|time| time.get()),
    };
    let what = if arguments.import.is_some() { "import" } else { "add" };
    let volume = match owner::change(&arguments.store, &request, what, &interrupt)? {
        Reply::Volume(volume) => volume,
        _ => VolumeDocument { name: arguments.name.clone(), size: bytes },
    };
    output::result(arguments.output.json, &volume, |volume| {
        format!("volume {} of {}\n", volume.name, format_size(volume.size))
    })
}

fn resize(arguments: &VolumeResizeArguments) -> Outcome {
    let interrupt = Interrupt::register()?;
    let request = Request::ResizeVolume { name: arguments.name.clone(), bytes: arguments.size };
    let volume = match owner::change(&arguments.store, &request, "resize", &interrupt)? {
        Reply::Volume(volume) => volume,
        _ => VolumeDocument { name: arguments.name.clone(), size: arguments.size },
    };
    output::result(arguments.output.json, &volume, |volume| {
        format!(
            "volume {} of {}; points before have the size that they had\n",
            volume.name,
            format_size(volume.size)
        )
    })
}

fn list(arguments: &StoreArguments) -> Outcome {
    let reader = owner::open_reader(&arguments.store)?;
    let document = VolumesDocument { volumes: reader.store.volumes().iter().map(Into::into).collect() };
    output::result(arguments.output.json, &document, |document| {
        let mut table = Table::new(["volume", "size"]);
        for volume in &document.volumes {
            table.row([volume.name.clone(), format_size(volume.size)]);
        }
        table.text()
    })?;
    reader.finish()
}

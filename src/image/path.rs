//! What a user types for an image on this machine, and what is meant by it.

use std::fmt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// How a file holds a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A fixed VHD: the bytes of the disk, then a footer.
    Vhd,
    /// The bytes of the disk and nothing else.
    Raw,
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "vhd" => Ok(Self::Vhd),
            "raw" => Ok(Self::Raw),
            _ => Err(format!("{text:?} is neither vhd nor raw")),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vhd => "vhd",
            Self::Raw => "raw",
        })
    }
}

/// An image on this machine: a file, which may be there or not, or a block device, which is there.
///
/// It is displayed as it is typed: `file:disk.vhd`, `/dev/sdb`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagePath {
    path: PathBuf,
    format: Format,
    is_device: bool,
}

impl ImagePath {
    /// Whether `text` is meant as an image on this machine at all, and not as a URL or a name in Azure.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with("file:") || text.starts_with("/dev/")
    }

    /// What `text` names. `format` takes precedence over the ending of a file's name.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when no format follows from the name, [`ErrorKind::NotFound`] when a device is not
    /// there.
    pub fn parse(text: &str, format: Option<Format>) -> Result<Self> {
        if text.contains("sig=") || text.contains("://") && !text.starts_with("file:///") {
            // Not shown: it may hold a SAS.
            return Err(Error::new(ErrorKind::Usage, "use it as an image on this machine", "it is a URL")
                .next("give a URL as it is, without file: before it"));
        }

        let path = path_in(text)?;
        // By its kind and not by its folder: /dev/shm holds files, and a link elsewhere may lead to a device.
        let kind = std::fs::metadata(path).map(|found| found.file_type());
        if kind.as_ref().is_ok_and(FileTypeExt::is_block_device) {
            return Self::device(path, text, format);
        }
        match format.map_or_else(|| format_of(path, text), Ok) {
            Ok(format) => Ok(Self { path: path.to_owned(), format, is_device: false }),
            Err(error) if !path.starts_with("/dev") => Err(error),
            Err(_) if kind.is_ok() => Err(usage(text, "it is no block device")
                .next("name the disk or a partition of it: lsblk lists them")),
            Err(_) => Err(Error::new(ErrorKind::NotFound, "open the device", "there is no such device")
                .on(text)
                .next("lsblk lists the devices of this machine")),
        }
    }

    fn device(path: &Path, text: &str, format: Option<Format>) -> Result<Self> {
        if format == Some(Format::Vhd) {
            return Err(usage(text, "a block device holds the bytes of a disk, without the footer of a VHD")
                .next("leave --format out"));
        }
        Ok(Self { path: path.to_owned(), format: Format::Raw, is_device: true })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How it holds the disk.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether it is a block device.
    pub fn is_device(&self) -> bool {
        self.is_device
    }

    /// The last part of its path, for a person to know it by.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned()
    }
}

impl fmt::Display for ImagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.is_device && self.path.starts_with("/dev") { "" } else { "file:" };
        write!(f, "{prefix}{}", self.path.display())
    }
}

/// The path in `file:PATH`, `file:///PATH` or `/dev/PATH`.
fn path_in(text: &str) -> Result<&Path> {
    let path = match text.strip_prefix("file:") {
        Some(path) if path.starts_with("///") => path.strip_prefix("//").unwrap_or(path),
        Some(path) if path.starts_with("//") => {
            return Err(usage(text, "a file of another machine cannot be named")
                .next("mount it, and name it by its path: file:PATH"));
        }
        Some(path) => path,
        None if text.starts_with("/dev/") => text,
        None => return Err(usage(text, "it names no file").next("write file:PATH for a file")),
    };
    if path.is_empty() || path.ends_with('/') {
        return Err(
            usage(text, "the name of the file is missing").next("write file:PATH, such as file:disk.vhd")
        );
    }
    Ok(Path::new(path))
}

/// The format that follows from the ending of a name.
fn format_of(path: &Path, text: &str) -> Result<Format> {
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    match ending.as_str() {
        "vhd" => Ok(Format::Vhd),
        "raw" | "img" | "bin" => Ok(Format::Raw),
        "vhdx" | "qcow2" | "vmdk" => {
            Err(usage(text, format!("Azure takes no .{ending}, only a fixed VHD"))
                .next(convert(&ending, path)))
        }
        _ => Err(usage(text, "its name does not tell what it holds")
            .next("end it with .vhd (fixed VHD) or .raw, .img, .bin (raw), or say --format vhd|raw")),
    }
}

/// How to make a raw file of an image that is neither raw nor a VHD.
fn convert(ending: &str, path: &Path) -> String {
    let target = path.with_extension("raw");
    format!("qemu-img convert -f {ending} -O raw {} {}, then file:{2}", path.display(), target.display(), {
        target.display()
    })
}

fn usage(text: &str, why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Usage, "use it as an image on this machine", why).on(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn kind(text: &str) -> ErrorKind {
        ImagePath::parse(text, None).unwrap_err().kind()
    }

    #[test]
    fn the_ending_tells_the_format_and_an_option_overrules_it() {
        for (text, format) in [
            ("file:disk.vhd", Format::Vhd),
            ("file:a/b.VHD", Format::Vhd),
            ("file:disk.raw", Format::Raw),
            ("file:/x/disk.img", Format::Raw),
            ("file:disk.bin", Format::Raw),
            ("file:/dev/shm/no-such.vhd", Format::Vhd),
        ] {
            let path = ImagePath::parse(text, None).unwrap();
            assert_eq!((path.format(), path.is_device(), path.to_string()), (format, false, text.to_owned()));
        }
        assert_eq!(ImagePath::parse("file:disk.vhd", Some(Format::Raw)).unwrap().format(), Format::Raw);
        assert_eq!(ImagePath::parse("file:disk", Some(Format::Vhd)).unwrap().format(), Format::Vhd);
        assert_eq!(ImagePath::parse("file:///x/d.vhd", None).unwrap().path(), Path::new("/x/d.vhd"));
    }

    #[test]
    fn what_cannot_be_an_image_is_refused_with_the_way_out() {
        for text in ["file:disk", "file:disk.iso", "file:", "file:folder/", "disk.vhd", "file://host/d.vhd"] {
            assert_eq!(kind(text), ErrorKind::Usage, "{text}");
        }
        for ending in ["vhdx", "qcow2", "vmdk"] {
            let error = ImagePath::parse(&format!("file:d.{ending}"), None).unwrap_err();
            let wanted = format!("qemu-img convert -f {ending} -O raw d.{ending} d.raw, then file:d.raw");
            assert_eq!((error.kind(), error.advice()), (ErrorKind::Usage, Some(wanted.as_str())));
        }
        assert!(
            ImagePath::parse("file:disk", None).unwrap_err().advice().unwrap().contains("--format vhd|raw")
        );
        assert_eq!(kind("/dev/no-such-device"), ErrorKind::NotFound);
        assert_eq!(kind("/dev/null"), ErrorKind::Usage);
    }

    #[test]
    fn a_format_is_read_as_it_is_written() {
        for format in [Format::Vhd, Format::Raw] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert!("vhdx".parse::<Format>().is_err());
    }
}

//! Where input comes from: files and standard input, plain or gzip.
//!
//! 1. Every file is looked at before anything is opened or created for it, so that a misspelt
//!    name leaves no directory behind.
//! 2. The format follows from the name or from `--input-format`; it is never guessed from the
//!    content. Gzip is known by its first two bytes, whatever the name.
//! 3. Progress is counted in the bytes as they are stored, compressed or not.
//! 4. Before each read of the file itself somebody else is asked, who may wait for it and do other
//!    things meanwhile, or refuse it.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use clap::ValueEnum;
use flate2::bufread::MultiGzDecoder;

use crate::failure::Failure;

/// How input is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputFormat {
    /// One JSON object a line
    #[value(aliases = ["jsonl", "json"])]
    Ndjson,
    /// Comma-separated values
    Csv,
    /// Tab-separated values
    Tsv,
}

/// One input, known to be there.
#[derive(Debug)]
pub(crate) struct Source {
    /// The name for messages.
    pub(crate) name: String,
    pub(crate) format: InputFormat,
    /// How many bytes are stored, where that is known.
    pub(crate) bytes: Option<u64>,
    /// `None` is standard input.
    path: Option<PathBuf>,
}

/// How many bytes were read of all inputs.
pub(crate) type BytesRead = Rc<Cell<u64>>;

const BUFFER_BYTES: usize = 128 * 1024;

impl Source {
    /// Looks at a path of the command line; `-` is standard input (1, 2).
    pub(crate) fn find(path: &Path, format: Option<InputFormat>) -> Result<Self, Failure> {
        if path.as_os_str() == "-" {
            let format = format.unwrap_or(InputFormat::Ndjson);
            return Ok(Self { name: "standard input".to_owned(), format, bytes: None, path: None });
        }
        let name = path.display().to_string();
        let failed = |error: io::Error| Failure::file(&name, &error);
        let metadata = std::fs::metadata(path).map_err(failed)?;
        if metadata.is_dir() {
            return Err(Failure::new(format!("{name}: a directory; name the files in it")));
        }
        let format = format.or_else(|| by_name(&name)).ok_or_else(|| {
            Failure::usage(format!(
                "{name}: the name does not tell the format (.ndjson, .jsonl, .json, .csv, .tsv, \
                 each also with .gz); say --input-format"
            ))
        })?;
        if metadata.is_file() {
            // Whether we may read it. A pipe would not survive being opened twice.
            File::open(path).map_err(failed)?;
        }
        let bytes = metadata.is_file().then_some(metadata.len());
        Ok(Self { name, format, bytes, path: Some(path.to_owned()) })
    }

    /// Opens it; what is read of it is added to `read` as it is stored (3), and `ask` is called before
    /// (4).
    pub(crate) fn open<'a>(
        &self,
        read: &BytesRead,
        ask: &'a Ask<'a>,
    ) -> io::Result<Box<dyn BufRead + 'a>> {
        let input = match &self.path {
            // Without the standard library's buffer, in which lines would lie unseen by who waits.
            None => File::from(io::stdin().as_fd().try_clone_to_owned()?),
            Some(path) => File::open(path)?,
        };
        decoded(Counted { input, read: Rc::clone(read), ask })
    }
}

/// Asked before each read of a file.
pub(crate) type Ask<'a> = dyn Fn(BorrowedFd<'_>) -> io::Result<()> + 'a;

/// The content of what is plain or gzip (2).
pub(crate) fn decoded<'a>(mut input: impl Read + 'a) -> io::Result<Box<dyn BufRead + 'a>> {
    let mut head = Vec::with_capacity(2);
    input.by_ref().take(2).read_to_end(&mut head)?;
    let is_gzip = head == [0x1f, 0x8b];
    let input = BufReader::with_capacity(BUFFER_BYTES, Read::chain(Cursor::new(head), input));
    Ok(if is_gzip {
        Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(input)))
    } else {
        Box::new(input)
    })
}

/// The format that a name tells.
fn by_name(path: &str) -> Option<InputFormat> {
    let path = path.to_ascii_lowercase();
    let path = path.strip_suffix(".gz").unwrap_or(&path);
    match path.rsplit_once('.')?.1 {
        "ndjson" | "jsonl" | "json" => Some(InputFormat::Ndjson),
        "csv" => Some(InputFormat::Csv),
        "tsv" => Some(InputFormat::Tsv),
        _ => None,
    }
}

struct Counted<'a> {
    input: File,
    read: BytesRead,
    ask: &'a Ask<'a>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (self.ask)(self.input.as_fd())?;
        let bytes = self.input.read(buffer)?;
        self.read.set(self.read.get() + bytes as u64);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_name_tells_the_format() {
        assert_eq!(by_name("a.ndjson.gz"), Some(InputFormat::Ndjson));
        assert_eq!(by_name("/x.y/A.JSONL"), Some(InputFormat::Ndjson));
        assert_eq!(by_name("a.b.csv"), Some(InputFormat::Csv));
        assert_eq!(by_name("a.tsv.gz"), Some(InputFormat::Tsv));
        assert_eq!(by_name("a.gz"), None);
        assert_eq!(by_name("x.y/a"), None);
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_its_name() {
        let refused = |path: &str, format| Source::find(Path::new(path), format).unwrap_err();
        assert_eq!(refused(env!("CARGO_MANIFEST_PATH"), None).code(), 2);
        let absent = refused("/absent/a.csv", None);
        assert_eq!(absent.code(), 1);
        assert!(absent.to_string().contains("/absent/a.csv"));
        assert!(refused("/", Some(InputFormat::Csv)).to_string().contains("directory"));
        assert_eq!(Source::find(Path::new("-"), None).unwrap().format, InputFormat::Ndjson);
    }

    #[test]
    fn gzip_is_known_by_its_bytes_and_may_have_several_members() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plain.csv");
        let mut stored = Vec::new();
        for part in ["a,b\n", "1,2\n"] {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(part.as_bytes()).unwrap();
            stored.extend(gzip.finish().unwrap());
        }
        for (content, text) in [(stored.as_slice(), "a,b\n1,2\n"), (b"a", "a"), (b"", "")] {
            std::fs::write(&path, content).unwrap();
            let source = Source::find(&path, None).unwrap();
            let read = BytesRead::default();
            let mut found = String::new();
            source.open(&read, &|_| Ok(())).unwrap().read_to_string(&mut found).unwrap();
            assert_eq!(found, text);
            assert_eq!(Some(read.get()), source.bytes);
        }
    }
}

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

fn refusal(directory: &Path) -> String {
    let error = read(directory, "config.json", 1000).expect_err("it should be refused");
    let error = explained(error, directory);
    let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
    format!("{error}{}", source.unwrap_or_default())
}

/// What is said of a file with these bytes.
fn said_of(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), bytes).unwrap();
    refusal(folder.path())
}

#[test]
fn what_is_no_regular_file_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    fs::create_dir(&path).unwrap();
    assert_eq!(refusal(folder.path()), "config.json is a folder, not a regular file: put the file itself there");
    fs::remove_dir(&path).unwrap();
    let device = "config.json is a pipe, socket or device, not a regular file: put the file itself there";
    for target in ["/dev/zero", "/dev/null", "/dev/tty"] {
        symlink(target, &path).unwrap();
        assert_eq!(refusal(folder.path()), device, "{target}");
        fs::remove_file(&path).unwrap();
    }
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
    assert_eq!(refusal(folder.path()), device);
    fs::remove_file(&path).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert_eq!(refusal(folder.path()), device);
}

#[test]
fn a_link_is_followed_and_one_that_leads_nowhere_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    symlink("../../blobs/0123", &path).unwrap();
    let dangling = "config.json is a link to ../../blobs/0123, which is not there: copy the folder with what its links \
                    lead to (cp -rL)";
    assert_eq!(refusal(folder.path()), dangling);
    fs::write(folder.path().join("blob"), "{}").unwrap();
    fs::remove_file(&path).unwrap();
    symlink("blob", &path).unwrap();
    assert_eq!(read(folder.path(), "config.json", 2).unwrap(), b"{}");
    fs::remove_file(&path).unwrap();
    symlink("config.json", &path).unwrap();
    assert!(refusal(folder.path()).starts_with("failed to read config.json: Too many levels of symbolic links"));
}

#[test]
fn what_a_file_is_instead_is_told_by_how_it_begins() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    assert!(
        said_of(pointer.as_bytes()).starts_with("config.json is a Git LFS pointer"),
        "{}",
        said_of(pointer.as_bytes())
    );
    for page in ["<!DOCTYPE html>", "\n <HTML lang=en>", "<?xml version='1.0'?><Error>", "Entry not found"] {
        assert!(said_of(page.as_bytes()).contains("an answer of a web server"), "{page}");
    }
    assert_eq!(said_of(b""), "config.json is empty: download it again");
    assert!(said_of(b"PK\x03\x04").contains("torch.save"));
    assert!(said_of(b"\x80\x02}q\x00").contains("torch.save"));
    assert!(said_of(b"GGUF\x03").contains("llama.cpp"));
    assert!(said_of(&[0x1f, 0x8b, 8]).contains("compressed"));
    assert!(said_of(&[0; 500]).contains("all zeros"));
    for text in [&b"\xff\xfe{\0\"\0"[..], b"\xfe\xff\0{\0\"", b"\xff\xfe{\0"] {
        assert_eq!(said_of(text), "config.json is text in UTF-16: save it in UTF-8");
    }
    assert_eq!(said_of(&[b' '; 1001]).split(',').next(), Some("config.json has 1001 bytes"));
    for good in [
        &b"{}"[..],
        b"\xef\xbb\xbf{}",
        b"  {\"a\": 1}",
        &[0x80, 2, 0, 0, 0, 0, 0, 0, b'{'],
        &[0xff, 0xfe, 2, 0, 0, 0, 0, 0, b'{'],
    ] {
        assert_eq!(Foreign::of(good), None, "{good:?}");
    }
}

#[test]
fn a_folder_that_is_no_model_says_what_it_is_and_which_to_give() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "{}").unwrap();
    };
    let says = |what: &str| {
        let said = refusal(folder.path());
        assert!(said.contains(what), "{said}");
    };
    says("there is no config.json: the folder is empty");
    place(".gitattributes");
    says("the folder is empty");
    place("tokenizer.json");
    assert_eq!(refusal(folder.path()), "there is no config.json: this is no model, or its download has not ended");
    place("qwen3/config.json");
    says("its folder qwen3 has one; give that");
    place("snapshots/0a1b/config.json");
    says("its folder snapshots/0a1b has one; give that");
    place("params.json");
    says("the vendor's own form");
    place("model-q4.gguf");
    says("model-q4.gguf is of llama.cpp");
    place("adapter_config.json");
    says("this is a LoRA adapter");
    let file = folder.path().join("params.json");
    assert_eq!(refusal(&file), "there is no config.json: this is a file; give the folder that holds it");
    assert_eq!(refusal(Path::new("/nowhere")), "there is no config.json: there is no such folder");
}

#[test]
fn a_file_that_somebody_names_is_read_within_its_bound_and_never_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let (file, fifo) = (folder.path().join("map.json"), folder.path().join("fifo"));
    std::fs::write(&file, [b' '; 100]).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    assert_eq!(read_of_at_most(&file, 100).unwrap().len(), 100);
    assert_eq!(read_of_at_most(&file, 99).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    for endless in [Path::new("/dev/zero"), &fifo] {
        let error = read_of_at_most(endless, 100).unwrap_err().to_string();
        assert_eq!(error, "it is a pipe, socket or device, not a regular file", "{}", endless.display());
    }
    assert_eq!(read_of_at_most(folder.path(), 100).unwrap_err().kind(), io::ErrorKind::IsADirectory);
    let patience = Duration::from_millis(50);
    assert_eq!(read_once_of_at_most(&file, 100, patience).unwrap().len(), 100);
    let error = read_once_of_at_most(Path::new("/dev/zero"), 100, patience).unwrap_err().to_string();
    assert_eq!(error, "it is a pipe, socket or device, not a regular file");
    assert_eq!(read_of_at_most(&folder.path().join("none"), 100).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_pipe_is_read_once_if_it_gives_all_its_bytes_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    let (short, long) = (Duration::from_millis(50), Duration::from_mins(1));
    let late = |error: io::Error| (error.kind(), error.to_string());
    let expected = (io::ErrorKind::TimedOut, "it is a pipe that has not ended within 0.05 s".to_owned());
    assert_eq!(late(read_once_of_at_most(&fifo, 100, short).unwrap_err()), expected, "nobody writes");
    // Both ends, as an unnamed pipe has that another process holds open.
    let mut open = File::options().read(true).write(true).open(&fifo).unwrap();
    assert_eq!(late(read_once_of_at_most(&fifo, 100, short).unwrap_err()), expected, "somebody could write");
    io::Write::write_all(&mut open, b"half").unwrap();
    assert_eq!(late(read_once_of_at_most(&fifo, 100, short).unwrap_err()), expected, "somebody could go on");
    drop(open);
    for (written, most, read) in [(100_000_usize, 100_000, Some(100_000)), (0, 100, Some(0)), (101, 100, None)] {
        let path = fifo.clone();
        let writer = std::thread::spawn(move || fs::write(path, vec![b' '; written]));
        let found = read_once_of_at_most(&fifo, most, long);
        writer.join().unwrap().unwrap();
        assert_eq!(
            found.map(|bytes| bytes.len()).map_err(|error| error.kind()),
            read.ok_or(io::ErrorKind::FileTooLarge)
        );
    }
    // As a shell's `<(...)` is: a name of an end that is open, of a pipe whose writer is gone.
    let (end, mut writer) = io::pipe().unwrap();
    io::Write::write_all(&mut writer, b"secret\n").unwrap();
    drop(writer);
    let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&end));
    assert_eq!(read_once_of_at_most(Path::new(&name), 100, long).unwrap(), b"secret\n");
}

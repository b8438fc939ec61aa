//! Files over a line protocol, on a thread for each core: each has a runtime of tokio-uring of its
//! own, and all share one cache.
//!
//! A client sends the name of a file and a line feed. It gets `<length> <where it came from>` and a
//! line feed, then the bytes; `-1` if there is no such file. A connection takes any number of them.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tamis::{BlobCache, BlobCachePolicy, BlobCachePut, CacheTier, FetchError};
use tokio_uring::net::TcpStream;

/// A file that has changed is seen after so long.
const FRESH: Duration = Duration::from_secs(2);

/// Longer names are no names.
const NAME_BYTES_MAX: usize = 1024;

/// Serves the files of a folder on as many threads, each of which accepts connections. Returns if
/// one of them fails.
///
/// # Errors
///
/// The first error of a runtime or of the listener.
pub fn serve(
    cache: &BlobCache,
    folder: &Path,
    listener: &TcpListener,
    threads: usize,
) -> io::Result<()> {
    let (failed, failures) = std::sync::mpsc::channel();
    for number in 0..threads {
        let (cache, folder, failed) = (cache.clone(), folder.to_owned(), failed.clone());
        let listener = listener.try_clone()?;
        let work = move || {
            let served = tokio_uring::start(accept(cache, folder, listener));
            let _ = failed.send(served);
        };
        thread::Builder::new().name(format!("files-{number}")).spawn(work)?;
    }
    drop(failed);
    failures.recv().unwrap_or(Ok(()))
}

async fn accept(cache: BlobCache, folder: PathBuf, listener: TcpListener) -> io::Result<()> {
    let listener = tokio_uring::net::TcpListener::from_std(listener);
    loop {
        let (client, _) = listener.accept().await?;
        let (cache, folder) = (cache.clone(), folder.clone());
        // A client that goes away is no reason to stop.
        tokio_uring::spawn(async move { drop(answer(&cache, &folder, &client).await) });
    }
}

async fn answer(cache: &BlobCache, folder: &Path, client: &TcpStream) -> io::Result<()> {
    let files = cache
        .namespace("files")
        .with_policy(BlobCachePolicy::default().ttl(FRESH).stale_serve(Duration::from_secs(60)));
    let mut line = Vec::new();
    loop {
        let (read, buffer) = client.read(Vec::with_capacity(NAME_BYTES_MAX)).await;
        let read = read?;
        if read == 0 || line.len() > NAME_BYTES_MAX {
            return Ok(());
        }
        line.extend_from_slice(buffer.get(..read).unwrap_or_default());
        while let Some(end) = line.iter().position(|&byte| byte == b'\n') {
            let name: Vec<u8> = line.drain(..=end).collect();
            let name = String::from_utf8_lossy(&name).trim().to_owned();
            // One task reads a file for all that ask for it, whatever threads they are on.
            let hit = files.get_or_fetch(&name, || read_file(folder, &name)).await;
            let (head, body) = match hit {
                Ok(hit) => {
                    let from = match hit.tier() {
                        CacheTier::L1 => "memory",
                        CacheTier::L2 => "disk",
                        _ => "file",
                    };
                    (format!("{} {from}\n", hit.value().len()), hit.into_bytes())
                }
                Err(FetchError::Fetch(_)) => ("-1\n".to_owned(), Bytes::new()),
                Err(error) => return Err(io::Error::other(error.to_string())),
            };
            client.write_all(head.into_bytes()).await.0?;
            // The ring sends from the bytes that the cache has.
            client.write_all(body).await.0?;
        }
    }
}

async fn read_file(folder: &Path, name: &str) -> io::Result<BlobCachePut> {
    // A name, and no path out of the folder.
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.starts_with('.') || name.contains('/')
    {
        return Err(io::ErrorKind::NotFound.into());
    }
    // Of the file that is read, and not of another one that has taken its name meanwhile.
    let file = fs::File::open(folder.join(name))?;
    let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let file = tokio_uring::fs::File::from_std(file);
    let (read, bytes) = file.read_exact_at(Vec::with_capacity(length), 0).await;
    read?;
    file.close().await?;
    Ok(BlobCachePut::new(bytes))
}

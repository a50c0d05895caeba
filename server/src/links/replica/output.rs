//! The way to a replica: what it lacks, or a snapshot, and then the stream for as long as the link lasts.

use std::future::pending;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::hub::Hub;
use super::transfer::Start;
use super::{End, Link};
use crate::journal::backlog::Cursor;
use crate::replication::{Stage, SyncRequest};
use crate::saving::{Delivery, Load, PayloadReader};

/// The socket of a link, which counts what is sent.
struct Output<'a, W> {
    socket: W,
    hub: &'a Hub,
    link: &'a Link,
}

impl<W: AsyncWrite + Unpin> Output<'_, W> {
    async fn send(&mut self, mut bytes: &[u8]) -> Result<(), End> {
        while !bytes.is_empty() {
            let count = self.socket.write(bytes).await?;
            if count == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into());
            }
            bytes = &bytes[count..];
            let figures = &self.hub.node.replication.replicas.figures;
            figures.bytes_out.fetch_add(count as u64, Ordering::Relaxed);
            self.link
                .client
                .bytes_out
                .fetch_add(count as u64, Ordering::Relaxed);
            self.link.sent_us.set(self.hub.node.clock.now_us());
        }
        Ok(())
    }

    /// Waits for something. Meanwhile the replica gets a line a second, so that it does not give the link up.
    async fn waiting_for<T>(&mut self, wanted: impl Future<Output = T>) -> Result<T, End> {
        let mut wanted = std::pin::pin!(wanted);
        loop {
            tokio::select! {
                biased;
                got = &mut wanted => return Ok(got),
                () = self.link.tick.notified() => self.send(b"\n").await?,
            }
        }
    }

    /// Sends what is left of a snapshot.
    async fn send_payload(&mut self, reader: &mut PayloadReader) -> Result<(), End> {
        let mut passed = 0;
        while let Some(load) = reader.next(passed).await? {
            passed = match load {
                Load::Kept(bytes, from) => {
                    self.send(&bytes[from..]).await?;
                    bytes.len() - from
                }
                Load::Filed(file, at, count) => {
                    let read = tokio::task::spawn_blocking(move || {
                        let mut bytes = vec![0; count];
                        file.read_exact_at(&mut bytes, at).map(|()| bytes)
                    });
                    let bytes = read.await.map_err(std::io::Error::other)??;
                    self.send(&bytes).await?;
                    count
                }
            };
        }
        Ok(())
    }

    /// Sends the stream.
    async fn send_stream(&mut self, mut cursor: Cursor) -> Result<(), End> {
        let mut sent = 0;
        loop {
            let piece = cursor.next(sent).await?;
            if self.hub.node.replication.replicas.histories() != self.link.history {
                // The bytes since then are of a history that the replica does not know: with a part of them, it could not go on where
                // the old one ended. The hub ends the link.
                return pending().await;
            }
            self.send(piece.bytes()).await?;
            sent = piece.bytes().len();
        }
    }
}

/// Sends to a replica what it has asked for.
pub(super) async fn feed(
    hub: &Hub,
    link: &Rc<Link>,
    socket: impl AsyncWrite + Unpin,
    request: &SyncRequest,
) -> Result<(), End> {
    let mut output = Output { socket, hub, link };
    let cursor = match hub.resume(link, request) {
        Some(cursor) => {
            let id = hub.node.replication.history.lock().id().to_owned();
            let line = match link.introduction.knows_ids {
                true => format!("+CONTINUE {id}\r\n"),
                false => "+CONTINUE\r\n".to_owned(),
            };
            output.send(line.as_bytes()).await?;
            cursor
        }
        None => synchronise(&mut output, hub, link, request).await?,
    };
    link.cursor.set(Some(cursor.number()));
    link.replica.reach(Stage::Follows);
    hub.note_online(link);
    output.send_stream(cursor).await
}

/// Sends a snapshot. Returns the place in the stream where it was made.
async fn synchronise<W: AsyncWrite + Unpin>(
    output: &mut Output<'_, W>,
    hub: &Hub,
    link: &Rc<Link>,
    request: &SyncRequest,
) -> Result<Cursor, End> {
    let start = output.waiting_for(hub.enqueue(link)).await?;
    let Start {
        cursor,
        mut reader,
        delivery,
        mark,
        id,
        offset,
    } = start.map_err(|_| End::NoSnapshot)?;
    link.cursor.set(Some(cursor.number()));
    if let SyncRequest::Partial { .. } = request {
        output
            .send(format!("+FULLRESYNC {id} {offset}\r\n").as_bytes())
            .await?;
    }
    match delivery {
        Delivery::Live => {
            link.replica.reach(Stage::Receives);
            output.send(format!("$EOF:{mark}\r\n").as_bytes()).await?;
            output.send_payload(&mut reader).await?;
            output.send(mark.as_bytes()).await?;
        }
        Delivery::Whole => {
            link.replica.reach(Stage::Copies);
            let length = output.waiting_for(reader.length()).await??;
            output.send(format!("${length}\r\n").as_bytes()).await?;
            output.send_payload(&mut reader).await?;
        }
    }
    drop(reader);
    hub.note_transferred(link);
    if link.introduction.is_snapshot_only {
        // It closes the connection when it has read the end.
        link.replica.reach(Stage::Done);
        link.acknowledged.notified().await;
        return Err(End::Complete);
    }
    if delivery == Delivery::Live {
        // Loading may take longer than a link may be silent. Meanwhile the replica says that it lives.
        link.replica.hear(hub.node.clock.now_us());
        link.replica.reach(Stage::Loads);
        // A replica may look for the mark only at the end of what it has read: nothing follows until it has found it.
        link.acknowledged.notified().await;
    }
    Ok(cursor)
}

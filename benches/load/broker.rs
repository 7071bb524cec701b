//! The application's side: an MQTT 3.1.1 broker that takes events with QoS 1 and notes when each came.

use std::io;
use std::net::SocketAddr;

use roamgate::clock::{Clock, Instant};
use roamgate::lorawan::DevEui;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// An uplink event has arrived.
pub struct Arrival {
    pub dev_eui: DevEui,
    pub fcnt: u32,
    pub at: Instant,
}

/// A broker; it is gone with the runtime.
pub struct Broker {
    pub address: SocketAddr,
    pub arrivals: mpsc::UnboundedReceiver<Arrival>,
}

impl Broker {
    pub async fn start(clock: &Clock) -> io::Result<Broker> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (tells, arrivals) = mpsc::unbounded_channel();
        let clock = clock.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tells, clock) = (tells.clone(), clock.clone());
                tokio::spawn(async move { serve(stream, tells, clock).await.unwrap_or_default() });
            }
        });
        Ok(Broker { address, arrivals })
    }
}

type From = BufReader<OwnedReadHalf>;

/// One packet: first byte and body.
async fn packet(from: &mut From) -> io::Result<(u8, Vec<u8>)> {
    let first = from.read_u8().await?;
    let (mut length, mut shift) = (0usize, 0);
    loop {
        let byte = from.read_u8().await?;
        length |= usize::from(byte & 0x7F) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).await?;
    Ok((first, body))
}

async fn serve(stream: TcpStream, tells: mpsc::UnboundedSender<Arrival>, clock: Clock) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (from, to) = stream.into_split();
    let (mut from, mut to) = (BufReader::new(from), BufWriter::new(to));
    loop {
        let (first, body) = packet(&mut from).await?;
        match first >> 4 {
            1 => to.write_all(&[0x20, 2, 0, 0]).await?,
            3 => {
                let at = clock.now();
                let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let (topic, rest) = body[2..].split_at(length);
                if first & 6 != 0 {
                    to.write_all(&[0x40, 2, rest[0], rest[1]]).await?;
                }
                if let Some((dev_eui, fcnt)) = uplink(topic, rest) {
                    let _ = tells.send(Arrival { dev_eui, fcnt, at });
                }
            }
            8 => to.write_all(&[0x90, 3, body[0], body[1], 1]).await?,
            12 => to.write_all(&[0xD0, 0]).await?,
            14 => return Ok(()),
            _ => {}
        }
        if from.buffer().is_empty() {
            to.flush().await?;
        }
    }
}

/// DevEUI and FCnt of `application/ID/device/DEVEUI/event/up`. Reading all of the JSON would take the driver's time.
fn uplink(topic: &[u8], body: &[u8]) -> Option<(DevEui, u32)> {
    let topic = std::str::from_utf8(topic).ok()?;
    let mut levels = topic.strip_suffix("/event/up")?.rsplit('/');
    let dev_eui = levels.next()?.parse().ok()?;
    let name = br#""fCnt":"#;
    let at = body.windows(name.len()).position(|window| window == name)? + name.len();
    let digits: Vec<u8> = body[at..].iter().copied().take_while(u8::is_ascii_digit).collect();
    Some((dev_eui, std::str::from_utf8(&digits).ok()?.parse().ok()?))
}

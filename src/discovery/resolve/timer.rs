//! The clock of `hickory`: its signature checks read our wall clock, not the system's.
//!
//! `hickory` asks a type for the time and never a value, so the clock rides in a task-local. Whoever
//! resolves or signs wraps the work in [`at`] or [`now_at`]. Outside of them it is 1970: every
//! signature is then invalid, and a forgotten wrapper cannot pass unnoticed.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use hickory_net::runtime::{RuntimeProvider, Time, TokioHandle, TokioRuntimeProvider, TokioTime};

use crate::clock::Clock;

tokio::task_local! {
    static WALL: Wall;
}

struct Wall {
    clock: Clock,
    /// Seconds to go back.
    back: u64,
}

/// Run a future whose DNSSEC checks read this clock.
pub async fn at<F: Future>(clock: Clock, work: F) -> F::Output {
    WALL.scope(Wall { clock, back: 0 }, work).await
}

/// Run something that signs as of some seconds ago by this clock.
pub fn now_at<T>(clock: Clock, back: u64, work: impl FnOnce() -> T) -> T {
    WALL.sync_scope(Wall { clock, back }, work)
}

/// Tokio's sockets and timers, with our wall clock.
#[derive(Clone, Default)]
pub struct Runtime(TokioRuntimeProvider);

/// The timer of [`Runtime`].
#[derive(Clone, Copy, Debug)]
pub struct Timer;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl Time for Timer {
    fn delay_for<'a>(time: Duration) -> BoxFuture<'a, ()> {
        TokioTime::delay_for(time)
    }

    fn timeout<'a, F>(time: Duration, work: F) -> BoxFuture<'a, Result<F::Output, io::Error>>
    where
        F: 'static + Future + Send + 'a,
    {
        TokioTime::timeout(time, work)
    }

    fn current_time() -> u64 {
        WALL.try_with(|wall| wall.clock.unix().saturating_sub(wall.back)).unwrap_or(0)
    }
}

impl RuntimeProvider for Runtime {
    type Handle = TokioHandle;
    type Timer = Timer;
    type Udp = <TokioRuntimeProvider as RuntimeProvider>::Udp;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Self::Handle {
        self.0.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        bind: Option<SocketAddr>,
        wait: Option<Duration>,
    ) -> BoxFuture<'static, Result<Self::Tcp, io::Error>> {
        self.0.connect_tcp(server, bind, wait)
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        server: SocketAddr,
    ) -> BoxFuture<'static, Result<Self::Udp, io::Error>> {
        self.0.bind_udp(local, server)
    }
}

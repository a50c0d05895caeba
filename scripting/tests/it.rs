//! Tests of the engine: one binary, so that it is linked once.

mod it {
    mod differential;
    mod errors;
    mod functions;
    mod hostile;
    mod redis;
    mod replies;
    mod sandbox;
    mod world;
}

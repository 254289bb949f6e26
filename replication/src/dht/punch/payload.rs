//! What two punching peers tell each other, sealed.

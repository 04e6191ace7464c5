//! The canonical text: the one serialisation that ids and signatures are taken over (asset ledger,
//! section 4.2).

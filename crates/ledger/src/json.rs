//! JSON as the ledger reads it: duplicate keys, NaN, infinities, unpaired surrogates and trailing
//! bytes are refused, integers of any size are kept exactly (asset ledger, section 4.2).

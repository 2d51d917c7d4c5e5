#pragma once

#include <cstdint>
#include <string>

namespace mla::launch {

/// What the system calls its processor; "unknown" if it does not say.
std::string cpu_model();

std::string host_name();

/// Bytes of all last-level caches of this machine together; 0 if the system does not say.
std::int64_t last_level_cache_bytes();

/// Bytes of main memory.
std::int64_t memory_bytes();

/// Today's date in UTC, as 2026-01-31.
std::string date_today();

}  // namespace mla::launch

#include "launch/machine.h"

#include <chrono>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <map>

#include <unistd.h>

namespace mla::launch {
namespace {

std::string first_word_of(const std::filesystem::path& path) {
  std::string word;
  std::ifstream(path) >> word;
  return word;
}

/// "32768K" in bytes.
std::int64_t parse_cache_size(const std::string& text) {
  std::int64_t bytes = 0;
  for (const char c : text) {
    if (c >= '0' && c <= '9') bytes = bytes * 10 + (c - '0');
    if (c == 'K') bytes <<= 10;
    if (c == 'M') bytes <<= 20;
  }
  return bytes;
}

}  // namespace

std::string cpu_model() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

std::string host_name() {
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  return name;
}

std::int64_t last_level_cache_bytes() {
  const std::filesystem::path cpus = "/sys/devices/system/cpu";
  std::map<int, std::map<std::string, std::int64_t>> caches;  // by level, then by who shares it
  for (int cpu = 0; std::filesystem::exists(cpus / ("cpu" + std::to_string(cpu))); ++cpu) {
    const auto folder = cpus / ("cpu" + std::to_string(cpu)) / "cache";
    for (int i = 0; std::filesystem::exists(folder / ("index" + std::to_string(i))); ++i) {
      const auto cache = folder / ("index" + std::to_string(i));
      const std::string level = first_word_of(cache / "level");
      if (level.empty()) continue;
      caches[level[0] - '0'][first_word_of(cache / "shared_cpu_list")] =
          parse_cache_size(first_word_of(cache / "size"));
    }
  }
  std::int64_t bytes = 0;
  if (!caches.empty()) {
    for (const auto& [cpus_sharing, size] : caches.rbegin()->second) bytes += size;
  }
  return bytes;
}

std::int64_t memory_bytes() {
  return static_cast<std::int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
}

std::string date_today() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[16] = {};
  std::strftime(text, sizeof text, "%Y-%m-%d", &utc);
  return text;
}

}  // namespace mla::launch

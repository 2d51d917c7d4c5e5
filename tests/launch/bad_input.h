#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/launch/run_command.h"

namespace mla::launch {

/// A folder that holds a small good batch, to be spoilt.
class Inputs {
 public:
  /// Writes the good batch as "batch.txtpb".
  Inputs();

  std::string operator/(const std::string& name) const { return folder_ / name; }
  void write(const std::string& name, const std::string& bytes) const;

  /// Replaces the only `from` in "batch.txtpb" by `to`.
  void replace(const std::string& from, const std::string& to) const;

  /// Writes the good batch in binary form as "batch.bin" and returns its bytes.
  std::string binary() const;

  /// Makes the cache of "batch.txtpb" tensor "kv" of "kv.safetensors", a file of `header` (JSON)
  /// and `data_bytes` zero bytes.
  void sidecar(const std::string& header, std::size_t data_bytes) const;

  std::vector<std::string> files() const { return folder_.files(); }

  /// `text` with every mention of the folder replaced by "DIR".
  std::string without_folder(std::string text) const;

 private:
  TemporaryFolder folder_;
};

/// A wrong input, and what the command must say of it.
struct BadInputCase {
  std::string name;
  std::function<std::string(const Inputs&)> arguments;  ///< spoils the inputs
  int exit_code;
  std::string line;  ///< after "meshmla: error: "; RANKS is the number of ranks
};

std::vector<BadInputCase> bad_input_cases();

/// Those of `meshmla generate`.
std::vector<BadInputCase> model_cases();

}  // namespace mla::launch

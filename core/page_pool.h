#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <span>
#include <tuple>
#include <vector>

namespace mla {

/// The pages of a KV cache: who uses them, and which full ones hold tokens that another sequence
/// may begin with. A page that nobody uses any more keeps its contents, and can be found, until a
/// page is needed for others; the page that was given back first goes first.
///
/// What a page holds is a function of the tokens from the start of a sequence to the page's end and
/// of which of them took the form of prompts (`ScheduledWork::prefill_end`), so pages are found by
/// exactly these: a page is a child of the page before it.
class PagePool {
 public:
  PagePool(std::int64_t num_pages, std::int64_t page_tokens);

  /// Pages that `take` can still give.
  std::int64_t available() const { return available_; }
  std::int64_t size() const { return static_cast<std::int64_t>(pages_.size()); }

  /// A page with one user, its contents of no meaning. Precondition: available() > 0.
  std::int32_t take();

  /// One user less.
  void give_back(std::int32_t page);

  /// Full pages that hold the beginning of `tokens`, as many as there are; each has one user more.
  /// @param prefill_end tokens that take the form of prompts, whole pages
  std::vector<std::int32_t> find_prefix(std::span<const std::int32_t> tokens,
                                        std::int64_t prefill_end);

  /// From now on `page`, which has a user, can be found: it holds `tokens`, as many as a page has,
  /// after what `parent` and the pages before that hold (none: at the start). A page that others
  /// can find already with these contents stays what is found.
  /// @param is_prefill whether they took the form of prompts
  void publish(std::int32_t page, std::optional<std::int32_t> parent,
               std::span<const std::int32_t> tokens, bool is_prefill);

 private:
  using Contents = std::vector<std::int32_t>;
  using Key = std::tuple<std::uint64_t, bool, Contents>;  // name of the parent's contents

  struct Page {
    std::int64_t users = 0;
    std::uint64_t name = 0;  // of the tokens up to its end; kUnnamed: not known
    std::optional<std::map<Key, std::int32_t>::iterator> entry;  // if it is what is found
    std::list<std::int32_t>::iterator place;                     // in idle_, if it has no users
  };
  static constexpr std::uint64_t kRoot = 0;
  static constexpr std::uint64_t kUnnamed = ~std::uint64_t{0};

  void add_user(std::int32_t page);

  std::int64_t page_tokens_;
  std::int64_t available_;
  std::uint64_t next_name_ = 1;  // names are never used again
  std::vector<Page> pages_;
  std::list<std::int32_t> idle_;  // without users, the first to go in front
  std::map<Key, std::int32_t> contents_;
};

}  // namespace mla

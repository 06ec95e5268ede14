// Where elements are true: counted first, as it takes their number to make room for the list.
#pragma once

#include <cstdint>

#include <loom/accelerators/view.h>

namespace loom {

class Positions {
 public:
  virtual ~Positions() = default;
  virtual int64_t count() const = 0;
  // y: i64, dense, [count, rank of what was looked at]; in row-major order. Not for empty y.
  virtual void list(const View& y) const = 0;
};

}  // namespace loom

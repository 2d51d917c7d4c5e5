#include <core/range.h>

int careless(int unused, double wide) {
  int wide_as_int = wide;
  { int wide_as_int = 0; }
  return wide_as_int;
}

#include <stdio.h>

#include <meshmla/meshmla.h>

int main(void) {
  printf("MeshMLA %s: %s\n", mla_version(), mla_backend_names());
  return mla_backend_check("portable");
}

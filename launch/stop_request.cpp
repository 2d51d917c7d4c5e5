#include "launch/stop_request.h"

#include <csignal>
#include <initializer_list>

#include <signal.h>

namespace mla::launch {
namespace {

volatile std::sig_atomic_t signal_has_come = 0;

void note_signal(int /*signal*/) {
  signal_has_come = 1;
}

/// A second SIGTERM ends the process as usual: who sends two is in a hurry.
void handle(void (*handler)(int)) {
  for (const int signal : {SIGUSR1, SIGTERM}) {
    struct sigaction action {};
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART | (signal == SIGTERM ? static_cast<int>(SA_RESETHAND) : 0);
    sigaction(signal, &action, nullptr);
  }
}

}  // namespace

StopRequest::StopRequest() {
  signal_has_come = 0;
  handle(note_signal);
}

StopRequest::~StopRequest() {
  handle(SIG_DFL);
}

bool StopRequest::has_come() const {
  return signal_has_come != 0;
}

}  // namespace mla::launch

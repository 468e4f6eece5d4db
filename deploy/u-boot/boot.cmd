# Tern's boot script for U-Boot: takes a try, chooses the slot, boots it.
#
#   mkimage -A arm64 -T script -C none -d boot.cmd boot.scr
#
# What the agent writes (docs/device-integration.md, "U-Boot"):
#   tern_active     the confirmed slot, a or b
#   tern_trial      the slot on trial, if any
#   tern_tries      boots that the trial has left, hexadecimal
#   tern_trial_rc   its release; not looked at here
#   tern_installed  with a single slot: the package that recovery has put there; empty while it does
#
# What the board supplies, as variables with commands:
#   tern_boot       boots slot ${tern_slot}, with tern.slot=${tern_slot} tern.trial=${tern_on_trial} on the kernel's command
#                   line; comes back if it cannot
#   tern_recovery   boots the recovery system
#   tern_single     1 on a device with a single slot: slots a and b are packages, and recovery installs them
#   tern_save       makes the environment durable in one write; without it: saveenv
#
# Tries are taken in a trial only, durably, and before the slot runs: a confirmed slot is never worn down by power
# cycles. The slot that is neither confirmed nor on trial is never booted: it may hold what nobody has approved. When
# nothing is left the script stops, and does not reset: a loop would hide the device from whoever comes to repair it.

echo "tern: active ${tern_active}, trial ${tern_trial}, tries ${tern_tries}"

# Without a record, because both copies are damaged or the device is new: the slot that a factory fills.
# Only for this boot: a guess must not become the record.
if test "${tern_active}" != a -a "${tern_active}" != b; then
  echo "tern: no boot record, taking slot a for the confirmed one"
fi

# Anything but a or b is no slot: the board's command would make a device of it.
setenv tern_slot
if test "${tern_trial}" = a; then setenv tern_slot a; fi
if test "${tern_trial}" = b; then setenv tern_slot b; fi
if test -n "${tern_slot}" -a -n "${tern_tries}"; then
  if itest 0x${tern_tries} -gt 0; then true; else setenv tern_slot; fi
else
  setenv tern_slot
fi

# Set where nothing below may be tried any more. No exit: within an if, U-Boot (2023.01) goes on after it.
setenv tern_stop

# A single slot that does not hold what is wanted: recovery puts it there, and no try is taken for that.
if test -n "${tern_single}"; then
  setenv tern_wanted ${tern_slot}
  if test -z "${tern_wanted}"; then
    setenv tern_wanted a
    if test "${tern_active}" = b; then setenv tern_wanted b; fi
  fi
  setenv tern_lacking
  if test "${tern_installed}" != "${tern_wanted}"; then
    echo "tern: ${tern_wanted} is wanted, installed is ${tern_installed}: recovery"
    # Not part of what is saved.
    setenv tern_slot
    setenv tern_wanted
    # Recovery begins by changing the record. Where it cannot be saved, and what is confirmed is there, there is no trial:
    # recovery could only send the device back here, again and again.
    if test -n "${tern_installed}" -a "${tern_installed}" = "${tern_active}"; then
      setenv tern_saved
      if test -n "${tern_save}"; then
        if run tern_save; then setenv tern_saved 1; fi
      else
        if saveenv; then setenv tern_saved 1; fi
      fi
      if test -n "${tern_saved}"; then
        setenv tern_lacking 1
      else
        echo "tern: the environment cannot be saved, no trial"
      fi
      setenv tern_saved
    else
      setenv tern_lacking 1
    fi
  fi
  setenv tern_wanted
  if test -n "${tern_lacking}"; then
    run tern_recovery
    # Where recovery does not come up, only what is installed can be tried.
    echo "tern: recovery does not boot"
    setenv tern_stop 1
    if test -n "${tern_installed}"; then
      setenv tern_slot ${tern_installed}
      setenv tern_on_trial 0
      run tern_boot
      setenv tern_slot
    fi
  fi
fi

if test -n "${tern_slot}"; then setexpr tern_tries 0x${tern_tries} - 1; fi

if test -n "${tern_slot}"; then
  setenv tern_saved
  # Not part of what is saved.
  setenv tern_slot
  if test -n "${tern_save}"; then
    if run tern_save; then setenv tern_saved 1; fi
  else
    if saveenv; then setenv tern_saved 1; fi
  fi
  # A try that was not taken durably would be taken for ever.
  if test -n "${tern_saved}"; then
    setenv tern_saved
    setenv tern_slot ${tern_trial}
    setenv tern_on_trial 1
    echo "tern: trial of slot ${tern_slot}, tries left after it: ${tern_tries}"
    run tern_boot
    # Come back: it cannot boot. The trial is over, also if the medium is better next time.
    echo "tern: slot ${tern_slot} does not boot"
    setenv tern_slot
    setenv tern_on_trial
    setenv tern_tries 0
    if test -n "${tern_save}"; then run tern_save; else saveenv; fi
    # The confirmed package is not in the single slot: it takes recovery, and another boot, to come there.
    if test -n "${tern_single}"; then
      run tern_recovery
      echo "tern: recovery does not boot"
      setenv tern_stop 1
    fi
  else
    echo "tern: the environment cannot be saved, no trial"
  fi
fi

if test -z "${tern_stop}"; then
  setenv tern_on_trial 0
  setenv tern_slot a
  if test "${tern_active}" = b; then setenv tern_slot b; fi
  # A single slot boots under the name of what is in it, also where that is a trial whose try cannot be taken: there is no
  # other to boot, and the agent must not take it for the confirmed one.
  if test -n "${tern_single}"; then setenv tern_slot ${tern_installed}; fi
  echo "tern: slot ${tern_slot}"
  run tern_boot

  echo "tern: nothing is left to boot, recovery"
  setenv tern_slot
  run tern_recovery
  echo "tern: no recovery either"
fi
echo "tern: stopped"

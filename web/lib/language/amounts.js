/** Numbers, times and sizes as people say them. */

import { t } from "./words.js";

/** A number as a person would write it: 0.0312, 12.3, 4,500, 2e-5. */
export function formatNumber(value, digits = 3) {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e7) return value.toExponential(digits - 1).replace(/\.?0+e/, "e").replace("e+", "e");
  if (size >= 1000) return Math.round(value).toLocaleString("en-US");
  return String(Number(value.toPrecision(digits)));
}

/** Seconds as ``8.2 s``, ``3 min 20 s``, ``2 h 05 min``. */
export function formatDuration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 10) return t("{seconds} s", { seconds: seconds.toFixed(1) });
  const whole = Math.round(seconds);
  if (whole < 60) return t("{seconds} s", { seconds: whole });
  if (whole < 3600) return t("{minutes} min {seconds} s", { minutes: Math.floor(whole / 60), seconds: pad(whole % 60) });
  return t("{hours} h {minutes} min", { hours: Math.floor(whole / 3600), minutes: pad(Math.floor((whole % 3600) / 60)) });
}

const pad = (value) => String(value).padStart(2, "0");

/** How long ago, roughly. Both times in milliseconds. */
export function formatAgo(then, now) {
  const minutes = Math.floor((now - then) / 60_000);
  if (!Number.isFinite(minutes)) return "";
  if (minutes < 1) return t("just now");
  if (minutes < 60) return t("{minutes} min ago", { minutes });
  if (minutes < 48 * 60) return t("{hours} h ago", { hours: Math.floor(minutes / 60) });
  return t("{days} days ago", { days: Math.floor(minutes / 1440) });
}

/** Bytes as ``3.4 MB``. */
export function formatBytes(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  for (; bytes >= 1000 && unit < units.length - 1; unit++) bytes /= 1000;
  return `${unit ? bytes.toPrecision(3) : bytes} ${units[unit]}`;
}

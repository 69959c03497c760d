"""What every call passes through."""

from headrace_server.interceptors.calls import CallInterceptor

__all__ = ["CallInterceptor"]

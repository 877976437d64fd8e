import pytest
import torch

WITHOUT_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=WITHOUT_CUDA)])
def device(request):
    """Each device on which networks are trained and predict."""
    return torch.device(request.param)
